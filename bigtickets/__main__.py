"""`python -m bigtickets`, for torchrun and for machines without the console command."""

import sys

from bigtickets.cli import main
from bigtickets.running.groups.exit_codes import run_rank

if __name__ == "__main__":
    sys.exit(run_rank(main))
