"""How a rank's exit code reaches who started the group: torchrun turns every one but 0 into 1."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bigtickets.environment import local_rank, speaks
from bigtickets.files import write_bytes

CODES = "BIGTICKETS_EXIT_CODES"
"""Environment variable: the folder in which each rank leaves its exit code for the launcher."""
FIRST_SPEAKS_S = 5.0


def run_rank(program: Callable[[list[str]], int]) -> int:
    """Run a rank's program with the words of the command line; the exit code of the process.

    Under launch/node.py that is 0 whenever the program ended in order, whatever its code: torchrun
    would kill the other ranks in the middle of their own ending and bury the one line that says
    what is wrong. The code itself is left in a file.
    """
    # DeepSpeed's launcher adds it; the environment says the same.
    words = [w for w in sys.argv[1:] if not w.startswith(("--local_rank=", "--local-rank="))]
    launched = CODES in os.environ
    if launched:
        _own_file().unlink(missing_ok=True)  # of an earlier life of this rank
    try:
        code = program(words)
    except SystemExit as error:  # argparse
        code = error.code if isinstance(error.code, int) else 1
    # The interpreter forgets its handlers before it ends; asked to stop again, it would die of it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    leave_code(code)
    if launched:
        return 0
    if code and not speaks():
        # Whoever started the ranks kills the others when one has failed: the first rank first.
        time.sleep(FIRST_SPEAKS_S)
    return code


def leave_code(code: int) -> None:
    """Tell the launcher, if there is one, with which code this rank ends."""
    if CODES in os.environ:
        write_bytes(_own_file(), str(code).encode())


def codes_left(folder: Path) -> list[int]:
    """The codes of the ranks that ended in order, by local rank."""
    found = []
    for path in sorted(folder.glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(FileNotFoundError):  # a new life has just taken it away
            found.append(int(path.read_text()))
    return found


def _own_file() -> Path:
    return Path(os.environ[CODES], local_rank())
