"""The local executor's groups: nothing of them stays."""

import sys
import time
from pathlib import Path

import psutil

from bigtickets.running.groups.launching import ranks_of, start
from bigtickets.running.local import Slot, _kill

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
