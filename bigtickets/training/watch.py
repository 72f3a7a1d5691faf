"""Notice that a rank has died or stands still, and end: waiting for it would be for ever.

A killed process closes its connections and its peers fail at once. A machine that loses its power
or its network closes nothing, and some transports wait for hours even if it does. So each rank
shows life in the group's store, looks after the next rank, and all learn what one has found. And
each looks after itself: a loop over batches that does not get on hangs, here or elsewhere.
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
STALL = "BIGTICKETS_STALL_S"
"""Environment variable: seconds that a loop may take for one batch; 0: for ever."""
DEFAULT_STALL_S = 1800.0
BEATS = 12
"""Signs of life in that time."""
FAILED = "failed"
GRACE_S = 30.0
"""For a rank to end by itself, after another has failed and said so."""
FAREWELL_S = 5.0
LEFT = "left"


class _Process:
    """What this process's threads tell each other."""

    moved_at: float | None = None
    """When a loop over batches last got on; None outside of one."""
    last_words: Callable[[str], None] | None = None


@contextlib.contextmanager
def paced() -> Iterator[Callable[[], None]]:
    """A loop over batches; every call of what this gives says that it got on."""

    def step() -> None:
        _Process.moved_at = time.monotonic()

    step()
    try:
        yield step
    finally:
        _Process.moved_at = None


@contextlib.contextmanager
def last_words(say: Callable[[str], None]) -> Iterator[None]:
    """Inside, `say` is called, from another thread, with what was found before the rank ends."""
    _Process.last_words = say
    try:
        yield
    finally:
        _Process.last_words = None


@contextlib.contextmanager
def watched(rank: int, world_size: int, from_first: Callable[[str], str]) -> Iterator[None]:
    """Watch over the group while it works; `from_first` gives the first rank's text to all."""
    silence, stall = silence_s(), stall_s()
    if world_size == 1 or silence == 0:
        yield
        return
    # A store outlives the groups that meet in it, so each group's signs have a name of their own.
    store, name = _store(silence), uuid.uuid4().hex
    if rank == 0:
        PrefixStore(name, store).set(FAILED, "")
    watch = Watch(PrefixStore(from_first(name), store), rank, world_size, silence, stall)
    watch.start()
    failed = f"rank {rank} on {socket.gethostname()} failed"
    try:
        yield
        failed = ""
    finally:
        watch.leave(failed)


class Watch:
    """Shows life, looks after the next rank and itself, and ends the process if one is lost.

    Two threads: a store that is cut off lets some of its callers wait for ever.
    """

    def __init__(
        self, store: Store, rank: int, world_size: int, silence_s: float, stall_s: float
    ) -> None:
        self._store, self._silence_s, self._stall_s = store, silence_s, stall_s
        self._mine, self._next = str(rank), str((rank + 1) % world_size)
        self._over = threading.Event()
        self._seen, self._failure, self._farewell = "", "", ""
        self._heard_at = time.monotonic()
        self._talking = threading.Thread(target=self._talk, daemon=True)

    def start(self) -> None:
        """Begin to show life."""
        self._talking.start()
        threading.Thread(target=self._judge, daemon=True).start()

    def leave(self, failed: str) -> None:
        """End; the others hear what failed, if anything did."""
        self._farewell = failed
        self._over.set()
        self._talking.join(FAREWELL_S)

    def _talk(self) -> None:
        """Everything that is said in the store and read from it."""
        signs = 0
        while not self._over.wait(self._silence_s / BEATS):
            signs += 1
            with contextlib.suppress(RuntimeError):  # no answer is silence too
                self._store.set(self._mine, str(signs))
                seen = self._store.get(self._next).decode()
                if seen != self._seen:
                    self._seen, self._heard_at = seen, time.monotonic()
                self._failure = self._store.get(FAILED).decode()
        with contextlib.suppress(RuntimeError):
            if self._farewell:
                self._store.set(FAILED, self._farewell)
            self._store.set(self._mine, LEFT)

    def _judge(self) -> None:
        """End the process if a rank is lost, or a failure said and not left in time."""
        looked_at, told_at = time.monotonic(), 0.0
        while not self._over.wait(self._silence_s / BEATS):
            now = time.monotonic()
            if now - looked_at > self._silence_s / 2 or self._seen == LEFT:
                self._heard_at = now  # it was this process that stood still, or all is well
            looked_at = now
            if self._failure and not told_at:
                told_at = now
                _say(self._failure)
            if told_at and now - told_at > GRACE_S:
                _end(self._failure)
            if now - self._heard_at > self._silence_s:
                silent = f"given no sign of life for {self._silence_s:.0f} s"
                self._lost(f"rank {self._next} has {silent}")
            moved_at = _Process.moved_at
            if self._stall_s and moved_at is not None and now - moved_at > self._stall_s:
                self._lost(f"rank {self._mine} has made no step for {self._stall_s:.0f} s")

    def _lost(self, text: str) -> None:
        _say(text)
        self.leave(text)
        _end(text)


def silence_s() -> float:
    """How long a rank may be silent; 0: for ever."""
    return _seconds(SILENCE, DEFAULT_SILENCE_S)


def stall_s() -> float:
    """How long a rank may take for one batch; 0: for ever."""
    return _seconds(STALL, DEFAULT_STALL_S)


def _seconds(variable: str, default: float) -> float:
    value = os.environ.get(variable) or str(default)
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise InputError(f"{variable}: {value!r} in the environment; expected seconds, 0: for ever")
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


def _say(text: str) -> None:
    """Have the last words said, but wait for them only a while: what hangs may be their file."""
    if (say := _Process.last_words) is not None:
        speaking = threading.Thread(target=say, args=(text,), daemon=True)
        speaking.start()
        speaking.join(FAREWELL_S)


def _end(text: str) -> None:
    """Say why and where each thread stands, and end at once: the main thread cannot."""
    print(f"bigtickets: {text}; this rank ends", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    os._exit(BigticketsError.exit_code)
