"""The benchmark of the control plane, small: every step run exactly once by many workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_study import HANG_S

pytestmark = pytest.mark.study
ROOT = Path(__file__).parents[2]


def test_many_workers_run_every_step_exactly_once(tmp_path: Path) -> None:
    """More steps than are asked for one by one; the program checks, and fails if it is not so."""
    program = [sys.executable, str(ROOT / "benchmarks" / "control_plane.py")]
    words = ["--workers", "8", "--seeds", "1", "--levels", "1", "--folder", str(tmp_path)]
    done = subprocess.run(
        [*program, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "445 steps, 240 of them trials" in done.stdout
    assert "445 steps run, each exactly once; no claim left" in done.stdout
