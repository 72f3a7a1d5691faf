"""The process group: who am I among the ranks, and the few things that ranks say to each other.

A single process is a group of one.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from bigtickets import errors
from bigtickets.environment import Place, place, set_local_rank
from bigtickets.errors import BigticketsError, InputError
from bigtickets.training import communication
from bigtickets.training.watch import watched

TIMEOUT = "BIGTICKETS_TIMEOUT_S"
"""Environment variable: seconds that a rank waits for the others at a meeting point."""
# Longer than any step in which one rank works alone (tokenising, hashing weights).
DEFAULT_TIMEOUT_S = 7200.0
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place in its group."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0

    def sum_(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` (any shape, same on all ranks) by its sum over the ranks."""
        if self.world_size > 1:
            dist.all_reduce(tensor)

    def max(self, value: float) -> float:
        """The largest of the ranks' values."""
        if self.world_size == 1:
            return value
        largest = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return float(largest)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set on any rank: so that all ranks decide alike."""
        if self.world_size == 1:
            return flags
        counts = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(counts)
        return tuple(bool(c) for c in counts.tolist())

    def from_first(self, value: Any) -> Any:
        """The first rank's JSON value on every rank. JSON, because no pickle is ever loaded."""
        return self._from(0, value)

    def each(self, action: Callable[[], T]) -> T:
        """What `action`, done on every rank, gives here; it must not talk to other ranks itself.

        If it fails on any rank, all ranks raise: none goes on and waits for one that has gone. The
        first to fail raises its own error, the others one of the same kind that names it.
        """
        result, error = None, None
        try:
            result = action()
        except Exception as caught:
            error = caught
        failed = self._first_failed(error is not None)
        if failed is not None:
            told = self._from(failed, _facts(error, self.rank) if error else None)
            raise error if error is not None and failed == self.rank else _error(told)
        return result  # type: ignore[return-value]

    def at_first(self, action: Callable[[], Any]) -> Any:
        """What `action` gives on the first rank alone, a JSON value, on all; its error too."""
        return self.from_first(self.each(lambda: action() if self.first else None))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            self.any(False)

    def _first_failed(self, failed: bool) -> int | None:
        """The lowest rank on which something failed; None if it did on none."""
        lowest = torch.tensor([self.rank if failed else self.world_size], device=self.device)
        if self.world_size > 1:
            dist.all_reduce(lowest, dist.ReduceOp.MIN)
        return int(lowest) if int(lowest) < self.world_size else None

    def _from(self, root: int, value: Any) -> Any:
        """One rank's JSON value on every rank."""
        if self.world_size == 1:
            return value
        data = json.dumps(value).encode() if self.rank == root else b""
        size = torch.tensor([len(data)], device=self.device)
        dist.broadcast(size, root)
        buffer = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.rank == root:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(buffer, root)
        return json.loads(bytes(buffer.cpu().tolist()))


def timeout() -> timedelta:
    """How long a rank waits for the others before it gives up."""
    value = os.environ.get(TIMEOUT)
    try:
        seconds = float(value) if value else DEFAULT_TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError(f"{TIMEOUT}: {value!r} in the environment; expected seconds, more than 0")
    return timedelta(seconds=seconds)


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the group that a launcher made, or a group of one that needs no port."""
    communication.install()
    me = place()
    set_local_rank()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", me.local_rank)
        torch.cuda.set_device(device)
    _join(me, "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    ranks = Ranks(me.rank, me.world_size, device)
    try:
        with watched(ranks.rank, ranks.world_size, ranks.from_first):
            yield ranks
    finally:
        dist.destroy_process_group()


def _join(me: Place, backend: str) -> None:
    if me.world_size > 1:
        dist.init_process_group(backend, timeout=timeout())
        return
    # A store in memory: a group of one needs no port, so any number of them run side by side.
    store = torch._C._distributed_c10d.HashStore()
    dist.init_process_group(backend, timeout=timeout(), store=store, rank=0, world_size=1)


def _facts(error: Exception, rank: int) -> list[str]:
    """An error as JSON: what kind it is for the user, and what it says."""
    kind = type(error).__name__ if isinstance(error, BigticketsError) else "BigticketsError"
    text = str(error)
    if isinstance(error, OSError):
        kind, text = "InputError", f"{error.filename or ''}: {error.strerror or error}"
    elif not isinstance(error, BigticketsError):
        text = f"{type(error).__name__}: {text}"
    return [kind, text if rank == 0 else f"rank {rank} on {socket.gethostname()}: {text}"]


def _error(facts: list[str]) -> BigticketsError:
    return getattr(errors, facts[0])(facts[1])
