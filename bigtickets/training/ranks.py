"""The process group: who am I among the ranks, and the few things that ranks say to each other.

The only module that reads RANK, LOCAL_RANK and WORLD_SIZE. A single process is a group of one.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from bigtickets.training import communication

# Longer than any step in which one rank works alone (tokenising, hashing weights).
TIMEOUT = timedelta(hours=2)


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
        if self.world_size == 1:
            return value
        data = json.dumps(value).encode() if self.first else b""
        size = torch.tensor([len(data)], device=self.device)
        dist.broadcast(size, 0)
        buffer = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.first:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(buffer, 0)
        return json.loads(bytes(buffer.cpu().tolist()))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            self.any(False)


def environment_rank() -> tuple[int, int, int]:
    """(rank, world size, local rank) as torchrun says them; (0, 1, 0) without it."""
    read = os.environ.get
    return int(read("RANK", "0")), int(read("WORLD_SIZE", "1")), int(read("LOCAL_RANK", "0"))


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the group that torchrun made, or a group of one that needs no port."""
    communication.install()
    rank, world_size, local_rank = environment_rank()
    # DeepSpeed asserts that a launcher has set it; a group of one has none.
    os.environ.setdefault("LOCAL_RANK", "0")
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if world_size == 1:
        # A store in memory: a group of one needs no port, so any number of them run side by side.
        store = torch._C._distributed_c10d.HashStore()
        dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=0, world_size=1)
    else:
        dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield Ranks(rank, world_size, device)
    finally:
        dist.destroy_process_group()
