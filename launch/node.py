"""One machine's part of a group of ranks: `python launch/node.py --help`."""

import sys

from bigtickets.running.groups.launcher import main

if __name__ == "__main__":
    sys.exit(main())
