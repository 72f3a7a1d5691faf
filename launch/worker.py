"""One worker of a run folder, for torchrun: `torchrun ... launch/worker.py RUN`."""

import sys

from bigtickets.running.groups.exit_codes import run_rank
from bigtickets.running.worker import main

if __name__ == "__main__":
    sys.exit(run_rank(main))
