"""Notice that another rank has died, and end: waiting for it would be for ever.

A killed process closes its connections and its peers fail at once. A machine that loses its power
or its network closes nothing, and some transports wait for hours even if it does. So each rank
shows life in the group's store, looks after the next rank, and all learn what one has found.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from bigtickets.errors import BigticketsError, InputError

SILENCE = "BIGTICKETS_SILENCE_S"
"""Environment variable: seconds without a sign of life after which a rank is lost; 0: never."""
DEFAULT_SILENCE_S = 120.0
BEATS = 12
"""Signs of life in that time."""
FAILED = "failed"
GRACE_S = 30.0
"""For a rank to end by itself, after another has failed and said so."""
LEFT = "left"


@contextlib.contextmanager
def watched(rank: int, world_size: int, from_first: Callable[[str], str]) -> Iterator[None]:
    """Watch over the group while it works; `from_first` gives the first rank's text to all."""
    silence = silence_s()
    if world_size == 1 or silence == 0:
        yield
        return
    # A store outlives the groups that meet in it, so each group's signs have a name of their own.
    store, name = _store(silence), uuid.uuid4().hex
    if rank == 0:
        PrefixStore(name, store).set(FAILED, "")
    watch = Watch(PrefixStore(from_first(name), store), rank, world_size, silence)
    watch.start()
    failed = f"rank {rank} on {socket.gethostname()} failed"
    try:
        yield
        failed = ""
    finally:
        watch.leave(failed)


class Watch:
    """One rank's thread: shows life, looks after the next rank, ends the process if need be."""

    def __init__(self, store: Store, rank: int, world_size: int, silence_s: float) -> None:
        self._store, self._silence_s = store, silence_s
        self._mine, self._next = str(rank), str((rank + 1) % world_size)
        self._over = threading.Event()
        self._count = 0
        self._seen = ""
        self._heard_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to show life."""
        self._thread.start()

    def leave(self, failed: str) -> None:
        """End; the others hear what failed, if anything did."""
        self._over.set()
        self._thread.join(self._silence_s)
        with contextlib.suppress(RuntimeError):
            if failed:
                self._store.set(FAILED, failed)
            self._store.set(self._mine, LEFT)

    def _run(self) -> None:
        looked_at = time.monotonic()
        told_at: float | None = None
        while not self._over.wait(self._silence_s / BEATS):
            now = time.monotonic()
            if now - looked_at > self._silence_s / 2:
                self._heard_at = now  # it was this process that stood still
            looked_at = now
            failure = self._look(now)
            if failure:
                told_at = told_at or now
                if now - told_at > GRACE_S:
                    _end(failure)
            if now - self._heard_at > self._silence_s:
                self._lost()

    def _look(self, now: float) -> str:
        """Show life and look for the next rank's; what others have said of a failure."""
        if self._seen == LEFT:
            self._heard_at = now
        # A store that does not answer is silence too. Of its questions only `get` has a time limit.
        with contextlib.suppress(RuntimeError):
            self._count += 1
            self._store.set(self._mine, str(self._count))
            seen = self._store.get(self._next).decode()
            if seen != self._seen:
                self._seen, self._heard_at = seen, now
            return self._store.get(FAILED).decode()
        return ""

    def _lost(self) -> None:
        text = f"rank {self._next} has given no sign of life for {self._silence_s:.0f} s"
        with contextlib.suppress(RuntimeError):
            self._store.set(FAILED, text)
        _end(text)


def silence_s() -> float:
    """How long a rank may be silent; 0: for ever."""
    value = os.environ.get(SILENCE) or str(DEFAULT_SILENCE_S)
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise InputError(f"{SILENCE}: {value!r} in the environment; expected seconds, 0: for ever")
    return seconds


def _store(silence_s: float) -> Store:
    """A connection of our own: on the group's, one rank's waiting would hold up its signs."""
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=max(1.0, silence_s / BEATS)),
    )


def _end(text: str) -> None:
    """Say why and where each thread stands, and end at once: the main thread cannot."""
    print(f"bigtickets: {text}; this rank ends", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    os._exit(BigticketsError.exit_code)
