"""What launchers and schedulers say in the environment: which rank, which node.

The only module that reads RANK, WORLD_SIZE, LOCAL_RANK and SLURM_*. It imports no torch.
"""

import os
from dataclasses import dataclass

from bigtickets.errors import InputError


@dataclass(frozen=True)
class Place:
    """A process among the ranks of its group."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Among the ranks of its machine."""


@dataclass(frozen=True)
class SlurmStep:
    """The `srun` that this process is a task of."""

    identity: str
    """Unique per job, step and life of the job."""
    node: int
    """Which node of the step this is, from 0."""
    nodes: int
    hosts: str
    """The step's nodes in SLURM's short form: `node[1-4]`."""
    task_of_node: int
    """Which of the node's tasks this is, from 0."""


def place() -> Place:
    """This process's place, as torchrun's variables say it; a group of one without them.

    Raises InputError when they are half set: ranks that disagree would wait for each other.
    """
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if given["RANK"] is None and given["WORLD_SIZE"] is None:
        return Place()
    missing = [name for name in ("RANK", "WORLD_SIZE") if given[name] is None]
    found = Place(
        rank=_number("RANK", given["RANK"]),
        world_size=_number("WORLD_SIZE", given["WORLD_SIZE"], 1),
        local_rank=_number("LOCAL_RANK", given["LOCAL_RANK"]),
    )
    if found.world_size > 1:
        missing += [n for n in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(n)]
    if missing:
        raise InputError(
            f"{' and '.join(missing)}: not in the environment, but other variables of a process "
            "group are; start through torchrun or launch/node.py, or unset RANK and WORLD_SIZE"
        )
    if found.rank >= found.world_size:
        raise InputError(f"RANK: {found.rank}, but WORLD_SIZE is {found.world_size}")
    return found


def speaks() -> bool:
    """Whether this process is the one of its group that speaks to the user."""
    try:
        return place().rank == 0
    except InputError:  # not said who does
        return True


def local_rank() -> str:
    """Its number among the ranks of its machine, as a file name."""
    return os.environ.get("LOCAL_RANK", "0")


def set_local_rank() -> None:
    """Say that a group of one is on its own: DeepSpeed asserts that a launcher has said it."""
    os.environ.setdefault("LOCAL_RANK", "0")


def slurm_step() -> SlurmStep | None:
    """The step that `srun` started this process in; None outside of one."""
    read = os.environ.get
    hosts = read("SLURM_STEP_NODELIST") or read("SLURM_JOB_NODELIST")
    if read("SLURM_STEP_ID") is None or not hosts:
        return None
    life = read("SLURM_RESTART_COUNT") or "0"
    return SlurmStep(
        identity=f"{read('SLURM_JOB_ID')}.{read('SLURM_STEP_ID')}.{life}",
        node=_number("SLURM_NODEID", read("SLURM_NODEID")),
        nodes=_number("SLURM_NNODES", read("SLURM_STEP_NUM_NODES") or read("SLURM_NNODES"), 1),
        hosts=hosts,
        task_of_node=_number("SLURM_LOCALID", read("SLURM_LOCALID")),
    )


def _number(name: str, value: str | None, least: int = 0) -> int:
    """A whole number from the environment; `least` if it is not there."""
    if value is None:
        return least
    if not value.isdecimal() or int(value) < least:
        raise InputError(f"{name}: {value!r} in the environment; expected {least} or more")
    return int(value)
