"""The local executor's groups: they stop when they are asked, and nothing of them stays."""

import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from small_study import HANG_S

from bigtickets.running import local
from bigtickets.running.groups.launching import ranks_of, start
from bigtickets.running.local import Slot, _kill, run_slots
from bigtickets.running.signals import Stop
from bigtickets.study.folder import RunFolder

SLEEP = "import time; time.sleep(600)"
TORCHRUN = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "{SLEEP}"], start_new_session=True)
{SLEEP}
"""


def test_a_killed_group_leaves_no_rank(tmp_path: Path) -> None:
    """Ranks have sessions of their own, as torchrun starts them."""
    slot = Slot(number=0, processes=1, threads=1, log=tmp_path / "log")
    slot.process = start([sys.executable, "-c", TORCHRUN], {})
    while not (ranks := ranks_of(slot.process)):
        time.sleep(0.05)
    _kill(slot)
    assert slot.process.poll() is not None
    _, alive = psutil.wait_procs(ranks, timeout=30)
    assert not alive


@pytest.mark.parametrize("deadline", [False, True])
def test_a_stop_ends_the_rest_after_a_long_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadline: bool
) -> None:
    """Where it does not, a job runs into its time limit."""
    monkeypatch.setattr(local, "REST", 100 * HANG_S)
    monkeypatch.setattr(local, "done_ids", lambda folder: time.sleep(0.1) or set())
    command = [sys.executable, "-c", SLEEP]
    monkeypatch.setattr(local, "worker_command", lambda folder, slot: command)
    stop = Stop(time.time() + 1 if deadline else None)
    if not deadline:
        threading.Timer(1, stop.ask).start()
    slot = Slot(number=0, processes=1, threads=1, log=tmp_path / "log")
    run_slots(RunFolder(tmp_path), [slot], stop, lambda done: None)
    assert slot.over
