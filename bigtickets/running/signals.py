"""Being asked to stop: by Ctrl-C, by the scheduler, or because the parent is gone."""

import math
import os
import signal
import threading
import time

from bigtickets.errors import Interrupted
from bigtickets.study.claims import process_alive

# USR1 is NCCL's.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
POLL_S = 0.5
PARENT = "BIGTICKETS_PARENT"
"""Environment variable: `pid start-time` of the process that a worker must not outlive."""


class Stop:
    """A flag that signals set and that long work reads at every step."""

    def __init__(self, until: float | None = None) -> None:
        self.until = until
        """Seconds since the epoch after which the flag counts as set."""
        self.terminated = False
        """Whether SIGTERM was among the signals."""
        self._asked = threading.Event()

    def install(self) -> None:
        """Let the signals set the flag; a second one ends the process at once."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def ask(self) -> None:
        """Set the flag."""
        self._asked.set()

    def asked(self) -> bool:
        """Whether to stop at the next step."""
        return self._asked.is_set() or self.seconds_left() <= 0

    def wait(self, seconds: float) -> None:
        """Wait so long, or until asked to stop."""
        end = time.monotonic() + seconds
        # Not by waiting for the event: a handler that sets it while this thread is on its way
        # into that would wait for this thread.
        while not self.asked() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))

    def seconds_left(self) -> float:
        """Until the deadline; infinite without one."""
        return math.inf if self.until is None else self.until - time.time()

    def raise_if_asked(self) -> None:
        """Interrupted if asked to stop: for work that has nothing to save."""
        if self.asked():
            raise Interrupted("stopped early")

    def _handle(self, number: int, frame: object) -> None:
        # torchrun repeats the signal that it got, so only Ctrl-C twice means impatience.
        if self.asked() and number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.terminated = self.terminated or number == signal.SIGTERM
        self.ask()


def parent_gone() -> bool:
    """Whether the process that started this worker has died without saying so."""
    value = os.environ.get(PARENT)
    if not value:
        return False
    pid, started = value.split()
    return not process_alive(int(pid), float(started))
