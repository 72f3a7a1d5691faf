"""`python -m bigtickets`, for torchrun and for machines without the console command."""

import sys

from bigtickets.cli import main

if __name__ == "__main__":
    sys.exit(main())
