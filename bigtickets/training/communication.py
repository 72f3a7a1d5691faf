"""How long this process waits in collectives.

Torch's collectives are wrapped once, before anything keeps a reference to them. What counts is the
time that the computing stream is held up: on a CPU the time inside the call, or inside `wait` of an
asynchronous one; on a GPU the same between two events on the current stream, so that nothing is
synchronised. Communication that hides behind computation is not counted; waiting for a slower rank
is.
"""

import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

COLLECTIVES = (
    "all_reduce",
    "broadcast",
    "reduce",
    "all_gather",
    "all_gather_into_tensor",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "all_to_all_single",
    "barrier",
)


class _Clock:
    """Adds up stretches of time on the computing stream, in seconds."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._open: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def call(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        if not torch.cuda.is_initialized():
            started = time.perf_counter()
            result = function(*args, **kwargs)
            self.total_s += time.perf_counter() - started
            return result
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        result = function(*args, **kwargs)
        last.record()
        self._open.append((first, last))
        self.close(wait=False)
        return result

    def close(self, wait: bool) -> None:
        """Add the stretches that are over; all of them if `wait`."""
        while self._open and (wait or self._open[0][1].query()):
            first, last = self._open.popleft()
            last.synchronize()
            self.total_s += first.elapsed_time(last) / 1e3


class _Timed:
    """An asynchronous collective whose `wait` is measured."""

    def __init__(self, work: Any) -> None:
        self._work = work

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        return _clock.call(self._work.wait, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


_clock = _Clock()


def install() -> None:
    """Wrap the collectives, once per process; before deepspeed is imported."""
    for name in COLLECTIVES:
        function = getattr(dist, name, None)
        if function is not None and not hasattr(function, "untimed"):
            setattr(dist, name, _timed(function))


def seconds() -> float:
    """Time spent in collectives since the start of the process; waits for those under way."""
    _clock.close(wait=True)
    return _clock.total_s


def _timed(function: Callable) -> Callable:
    @functools.wraps(function)
    def collective(*args: Any, **kwargs: Any) -> Any:
        work = _clock.call(function, *args, **kwargs)
        return work if work is None else _Timed(work)

    collective.untimed = function  # type: ignore[attr-defined]
    return collective
