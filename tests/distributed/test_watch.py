"""Silence becomes an end with a reason: nobody waits for a rank that hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_study import HANG_S

from bigtickets.training.watch import SILENCE, STALL

SCRIPT = Path(__file__).with_name("stall_rank.py")


@pytest.mark.distributed
def test_a_rank_that_does_not_get_on_ends_the_group(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc_per_node", "2", str(SCRIPT), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", SILENCE: "60", STALL: "8"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 1, done.stderr
    assert "has made no step for 8 s; this rank ends" in done.stderr
    assert 'stall_rank.py", line' in done.stderr, "no word on where it hangs"
    said = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert any("has made no step" in text for text in said.values())
