"""The local executor: torchrun groups side by side on this machine, over one run folder."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bigtickets.errors import BigticketsError, InputError
from bigtickets.running.groups.launching import (
    OFFLINE,
    ask_to_stop,
    group_environment,
    standalone_command,
    start,
    threads_per_rank,
    visible_devices,
)
from bigtickets.running.signals import Stop
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import StudySpec
from bigtickets.study.state import done_ids

POLL_S = 0.5
REST = 10
"""Between two looks at the run folder: so many times as long as a look takes."""
LEAST_FREE_BYTES = 2**20
STRIKES = 5
"""Deaths of a slot in a row, with nothing finished in between, before it is given up."""


class GroupDied(BigticketsError):
    """A group that spans nodes is gone; only all of its nodes together can start it again."""

    exit_code = 70


@dataclass
class Slot:
    """One torchrun group, started again if it dies."""

    number: int
    processes: int
    """Ranks on this machine."""
    threads: int
    log: Path
    worker: tuple[str, ...] = ()
    """More arguments of the worker."""
    over_nodes: tuple[str, ...] = ()
    """Words of the launcher for this node's part of a group; empty: all of the group is here."""
    process: subprocess.Popen | None = None
    strikes: int = 0
    done_at_start: int = 0
    over: bool = False


def run_workers(
    study: StudySpec, folder: RunFolder, jobs: int, stop: Stop, show: Callable[[set[str]], None]
) -> None:
    """Work on the run folder with `jobs` groups until nothing is left; `show` gets the done ids.

    Models that ask for another number of processes per trial take their turn one after another.
    """
    shapes = sorted({model.execution.processes for model in study.models})
    devices = len(visible_devices())
    if devices and shapes[-1] > devices:
        raise InputError(
            f"execution.processes_per_trial: {shapes[-1]}, but {devices} GPUs are visible"
        )
    for processes in shapes:
        run_slots(folder, _slots(study, folder, jobs, processes), stop, show)
        if stop.asked():
            return


def run_slots(
    folder: RunFolder, slots: list[Slot], stop: Stop, show: Callable[[set[str]], None]
) -> None:
    """Keep groups going until each has said that nothing is left for it, or `stop` is asked."""
    try:
        progress = 0
        while not all(slot.over for slot in slots):
            began = time.monotonic()
            if not stop.asked():  # then nothing is started any more, and time may be short
                done = done_ids(folder)
                show(done)
                progress = len(done) + _attempts(folder)
            for slot in slots:
                _tend(folder, slot, stop, progress)
            # Listing 100,000 results takes a while, and every slot of a cluster does it.
            rest_s = REST * (time.monotonic() - began) - POLL_S
            time.sleep(POLL_S)
            stop.wait(rest_s)
        show(done_ids(folder))
    finally:
        for slot in slots:
            _kill(slot)


def worker_command(folder: RunFolder, slot: Slot) -> list[str]:
    """The argv of one group, or of this node's part of one."""
    words = [str(folder.root), "--worker-log", slot.log.name, *slot.worker]
    if slot.over_nodes:
        node = [*slot.over_nodes, "--nproc-per-node", str(slot.processes)]
        return [sys.executable, "-m", "bigtickets.running.groups.launcher", *node, "worker", *words]
    return standalone_command(slot.processes, ["-m", "bigtickets.running.worker", *words])


def worker_environment(slot: Slot) -> dict[str, str]:
    """The environment of one group: its share of cores and devices, no network, a parent."""
    own = {**group_environment(slot.threads), **OFFLINE}
    visible = visible_devices()
    if visible:
        first = slot.number * slot.processes
        chosen = [visible[i % len(visible)] for i in range(first, first + slot.processes)]
        own["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return {**os.environ, **own}


def default_jobs(study: StudySpec) -> int:
    """One group per device (or per so many as a trial takes); one on a machine without."""
    processes = max(model.execution.processes for model in study.models)
    return max(1, len(visible_devices()) // processes)


def _slots(study: StudySpec, folder: RunFolder, jobs: int, processes: int) -> list[Slot]:
    executions = [m.execution for m in study.models]
    asked = next(e.threads for e in executions if e.processes == processes)
    threads = threads_per_rank(jobs * processes) if asked == "auto" else asked
    folder.logs.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    return [
        Slot(
            number=i,
            processes=processes,
            threads=threads,
            log=folder.logs / f"{host}-{processes}x-{i}.log",
            worker=("--processes", str(processes)),
        )
        for i in range(jobs)
    ]


def _attempts(folder: RunFolder) -> int:
    """Attempts on record: a group that ends with a recorded failure has got somewhere."""
    return sum(1 for path in folder.claims.glob("*.*") if not path.name.startswith("."))


def _tend(folder: RunFolder, slot: Slot, stop: Stop, done: int) -> None:
    """Start, restart or stop one slot, as its state asks for."""
    if slot.over:
        return
    if slot.process is None:
        if stop.asked():
            slot.over = True
        else:
            _start(folder, slot, done)
        return
    code = slot.process.poll()
    if code is None:
        if stop.asked():
            _ask(slot, slot.process)
        return
    slot.process = None
    if code == 0 or stop.asked():
        slot.over = True
        return
    if slot.over_nodes:
        raise GroupDied(f"the group died on this node; see {slot.log}")
    slot.strikes = slot.strikes + 1 if done == slot.done_at_start else 1
    if slot.strikes >= STRIKES:
        raise BigticketsError(
            f"a worker died {STRIKES} times without finishing anything; "
            f"the end of {slot.log}:\n{tail(slot.log, 5)}"
        )


def _ask(slot: Slot, process: subprocess.Popen) -> None:
    """Ask to stop, again and again: a rank that is still starting does not hear it."""
    if slot.over_nodes:
        process.send_signal(signal.SIGUSR2)  # the launcher asks its ranks
    elif not ask_to_stop(process):
        process.send_signal(signal.SIGTERM)  # it has not begun


def _start(folder: RunFolder, slot: Slot, done: int) -> None:
    if shutil.disk_usage(folder.root).free < LEAST_FREE_BYTES:
        raise InputError(
            f"{folder.root}: the disk is full; make room, then the same command goes on"
        )
    slot.done_at_start = done
    with slot.log.open("ab") as log:
        slot.process = start(worker_command(folder, slot), worker_environment(slot), log)


def _kill(slot: Slot) -> None:
    """Leave nothing behind, whatever went wrong."""
    if slot.process is not None and slot.process.poll() is None:
        below = psutil.Process(slot.process.pid).children(recursive=True)
        slot.process.kill()
        slot.process.wait()
        for process in below:  # ranks have sessions of their own
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def tail(path: Path, lines: int) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
