"""Single steps under torchrun: `torchrun --nproc_per_node 2 launch/step.py score STUDY.yaml`."""

import sys

from bigtickets.cli import main
from bigtickets.running.groups.exit_codes import run_rank

if __name__ == "__main__":
    sys.exit(run_rank(main))
