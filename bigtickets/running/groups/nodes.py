"""Which machine of a group this is: by hand, by a hostfile, or under `srun`."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bigtickets.environment import slurm_step
from bigtickets.errors import InputError
from bigtickets.running.groups.hostfile import own_line, read_hostfile


@dataclass(frozen=True)
class Node:
    """This machine's part in one group of ranks."""

    rank: int
    """From 0; all machines meet at number 0."""
    count: int
    processes: int
    """Ranks that run here."""
    first: str
    """Name or address of number 0."""
    port: int | None
    """Where number 0 is met; None: derived from the job."""
    job: str
    """The same on all nodes, and unique among the groups of these machines."""


@dataclass(frozen=True)
class Asked:
    """What the user said on the command line; None: not said."""

    nnodes: int | None = None
    node_rank: int | None = None
    nproc_per_node: int | None = None
    master_addr: str | None = None
    master_port: int | None = None
    hostfile: Path | None = None
    job: str | None = None


def find_node(asked: Asked, default_processes: int) -> Node:
    """This machine's part: as asked; else by the hostfile; else by SLURM; else it is alone."""
    processes = asked.nproc_per_node or default_processes
    if asked.hostfile is not None:
        return _by_hostfile(asked, asked.hostfile)
    if asked.nnodes is None and "NNODES" not in os.environ and slurm_step() is not None:
        return _by_slurm(asked, processes)
    return _by_hand(asked, processes)


def _by_hand(asked: Asked, processes: int) -> Node:
    count = _said(asked.nnodes, "NNODES") or 1
    if count == 1:
        return Node(0, 1, processes, "", None, asked.job or "")
    rank = _said(asked.node_rank, "NODE_RANK")
    first = asked.master_addr or os.environ.get("MASTER_ADDR")
    if rank is None or not first:
        raise InputError(
            f"--nnodes {count} needs --node-rank (0 to {count - 1}) and --master-addr "
            "(name or address of node 0), or NODE_RANK and MASTER_ADDR in the environment"
        )
    port = _said(asked.master_port, "MASTER_PORT")
    return _checked(Node(rank, count, processes, first, port, asked.job or "by-hand"))


def _by_hostfile(asked: Asked, path: Path) -> Node:
    hosts = read_hostfile(path)
    if asked.nnodes not in (None, len(hosts)):
        raise InputError(f"--nnodes {asked.nnodes}, but {path} names {len(hosts)} hosts")
    rank = asked.node_rank
    if rank is None:
        rank = own_line(path, hosts) if len(hosts) > 1 else 0
    if not 0 <= rank < len(hosts):
        raise InputError(f"--node-rank {rank}: {path} names {len(hosts)} hosts")
    processes = asked.nproc_per_node or hosts[rank].slots
    first = asked.master_addr or hosts[0].name
    port, job = asked.master_port, asked.job or "by-hostfile"
    return Node(rank, len(hosts), processes, first, port, job)


def _by_slurm(asked: Asked, processes: int) -> Node:
    step = slurm_step()
    assert step is not None
    if step.task_of_node:
        raise InputError("srun: several tasks on a node; start one: --ntasks-per-node=1")
    first = asked.master_addr or ""
    if step.nodes > 1 and not first:
        first = _hostnames(step.hosts)[0]
    job = asked.job or step.identity
    return _checked(Node(step.node, step.nodes, processes, first, asked.master_port, job))


def _hostnames(short: str) -> list[str]:
    """SLURM's short form of a list of nodes, written out by SLURM itself."""
    command = ["scontrol", "show", "hostnames", short]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{' '.join(command)}: {error}; give --master-addr") from None
    return result.stdout.split()


def _checked(node: Node) -> Node:
    if not 0 <= node.rank < node.count:
        raise InputError(f"--node-rank {node.rank}: expected 0 to {node.count - 1}")
    return node


def _said(option: int | None, variable: str) -> int | None:
    """The command line's number, else the environment's."""
    value = os.environ.get(variable)
    if option is not None or not value:
        return option
    if not value.isdecimal():
        raise InputError(f"{variable}: {value!r} in the environment; expected a number")
    return int(value)
