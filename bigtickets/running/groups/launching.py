"""Starting a group of ranks on this machine through torchrun, and asking it to stop."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from bigtickets.running.groups.nodes import Node
from bigtickets.running.signals import PARENT

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
# How long a node waits for an answer of the store before it takes node 0 for lost.
STORE_S = 60
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
"""For workers: everything that needs a network was done before they start."""


def standalone_command(processes: int, words: Sequence[str]) -> list[str]:
    """The argv of a group on one machine. `--standalone` takes a free port: groups never meet."""
    return [*TORCHRUN, "--standalone", "--nproc_per_node", str(processes), *words]


def node_command(
    node: Node, port: int, words: Sequence[str], restarts: int, wait_s: float
) -> list[str]:
    """The argv of one node's part of a group; node 0 keeps the store at `port`."""
    if node.count == 1:
        own = ("--max_restarts", str(restarts))
        return standalone_command(node.processes, (*own, *words))
    settings = {
        "is_host": int(node.rank == 0),
        "join_timeout": round(wait_s),
        "read_timeout": STORE_S,
    }
    return [
        *TORCHRUN,
        *("--nnodes", str(node.count), "--nproc_per_node", str(node.processes)),
        *("--max_restarts", str(restarts)),
        *("--rdzv_backend", "c10d", "--rdzv_id", node.job),
        *("--rdzv_endpoint", f"{_in_url(node.first)}:{port}"),
        *("--rdzv_conf", ",".join(f"{key}={value}" for key, value in settings.items())),
        *("--local_addr", own_address(node, port)),
        *words,
    ]


def own_address(node: Node, port: int) -> str:
    """The name or address under which the other nodes reach this one.

    A machine's own name often leads to its loopback address when it asks itself.
    """
    if node.rank == 0:
        return node.first
    family, _, _, _, address = socket.getaddrinfo(node.first, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing; it chooses the way
        return str(probe.getsockname()[0])


def group_environment(threads: int | None) -> dict[str, str]:
    """What a group's ranks find in their environment beside ours: threads, quiet, a parent."""
    me = psutil.Process()
    own = {
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        PARENT: f"{me.pid} {me.create_time()}",
    }
    return own if threads is None else {**own, "OMP_NUM_THREADS": str(threads)}


def start(
    command: list[str], environment: Mapping[str, str], output: IO[bytes] | None = None
) -> subprocess.Popen:
    """Start torchrun in a session of its own, so that Ctrl-C does not reach it; output to a file.

    It and its ranks ignore USR2 until a rank says what it does then: none dies of one that comes
    early, and a scheduler may send it to all processes alike.
    """
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_ignore_usr2,
    )


def ranks_of(torchrun: subprocess.Popen) -> list[psutil.Process]:
    """The ranks that torchrun has started and that live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(torchrun.pid).children()
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return []


def ask_to_stop(torchrun: subprocess.Popen) -> bool:
    """Ask the ranks to stop as soon as they can; False if there are none (yet, or any more).

    Not through torchrun, which would kill them after 30 seconds. May be repeated.
    """
    ranks = ranks_of(torchrun)
    for rank in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.send_signal(signal.SIGUSR2)
    return bool(ranks)


def threads_per_rank(ranks: int) -> int:
    """This machine's cores shared out to so many ranks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // ranks)


def visible_devices() -> list[str]:
    """Visible CUDA devices, without starting CUDA in this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    # Importing torch takes seconds; a machine without the driver has no such folder.
    if not Path("/proc/driver/nvidia/gpus").is_dir():
        return []
    return [str(i) for i in range(len(list(Path("/proc/driver/nvidia/gpus").iterdir())))]


def _ignore_usr2() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
