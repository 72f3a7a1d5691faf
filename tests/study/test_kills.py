"""What was killed ends like what was not: bit-identical, and nothing run twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_study import records, write_study

pytestmark = pytest.mark.study
TRAINING = {"epochs": 6, "learning_rate": 1e-3, "batch_size": 8, "max_length": 24}


def start(*words: str, cwd: Path, errors: int = subprocess.DEVNULL) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "bigtickets", *words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
    )


def finish(*words: str, cwd: Path) -> None:
    process = start(*words, cwd=cwd, errors=subprocess.PIPE)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors.decode()


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL to a process and all its descendants: nobody can tidy up."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def science(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what a clock or a restart changes."""
    kept = (
        "id",
        "spec",
        "metrics",
        "majority_score",
        "degenerate",
        "counts",
        "fractions",
        "ticket",
    )
    return {key: record[key] for key in (*kept, "ticket")}


def metric_lines(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "examples_per_s"} for line in lines]


def test_a_trial_killed_at_a_random_step_ends_bit_identical(tmp_path: Path) -> None:
    path = write_study(
        tmp_path, training=TRAINING, execution={"checkpoint_every_s": 0, "threads": 1}
    )
    finish("train", str(path), "--out", "whole", cwd=tmp_path)
    draw, resumed = random.Random(0), 0
    for _ in range(3):
        process = start("train", str(path), "--out", "killed", cwd=tmp_path)
        if not wait_for_checkpoint(tmp_path / "killed", process, draw.uniform(0, 1)):
            break
        kill_tree(process)
    finish("train", str(path), "--out", "killed", cwd=tmp_path)
    (whole,), (killed,) = records(tmp_path / "whole"), records(tmp_path / "killed")
    first = records(tmp_path / "whole")[whole]
    second = records(tmp_path / "killed")[killed]
    resumed = len(second["resumed_at"])
    assert resumed >= 1, "no attempt went on from a checkpoint"
    assert science(first) == science(second)
    for name in (f"weights/{whole}.safetensors", f"trials/{whole}/predictions.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    lines = [tmp_path / run / "trials" / whole / "metrics.jsonl" for run in ("whole", "killed")]
    assert metric_lines(lines[0]) == metric_lines(lines[1])


def wait_for_checkpoint(run: Path, process: subprocess.Popen, more_s: float) -> bool:
    """Wait until this process has written a checkpoint, and a bit; False if it finished first."""
    before = {p.name for p in run.glob("work/*/attempt-*/checkpoints/step-*")}
    while process.poll() is None:
        now = {p.name for p in run.glob("work/*/attempt-*/checkpoints/step-*")}
        if now - before:
            time.sleep(more_s)
            return process.poll() is None
        time.sleep(0.02)
    return False


def test_a_study_killed_ten_times_finishes_with_the_same_records(tmp_path: Path) -> None:
    path = write_study(tmp_path, execution={"checkpoint_every_s": 0, "threads": 1})
    finish("run", str(path), "--out", "whole", "-j", "2", cwd=tmp_path)
    draw = random.Random(1)
    kills = 0
    while kills < 10:
        process = start("run", str(path), "--out", "killed", "-j", "2", cwd=tmp_path)
        # From before the first worker starts to the middle of the trials.
        time.sleep(draw.uniform(1, 16))
        if process.poll() is not None:
            break
        if kills % 3 == 2:
            # Only the parent dies: its workers must notice and stop.
            process.send_signal(signal.SIGKILL)
            process.wait()
        else:
            kill_tree(process)
        kills += 1
    finish("run", str(path), "--out", "killed", "-j", "2", cwd=tmp_path)
    whole, killed = records(tmp_path / "whole"), records(tmp_path / "killed")
    assert kills >= 3
    assert {i: science(r) for i, r in whole.items()} == {i: science(r) for i, r in killed.items()}
    assert not list((tmp_path / "killed" / "claims").iterdir())
    assert not list((tmp_path / "killed" / "work").glob("*"))


def test_ctrl_c_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    process = start("run", str(path), cwd=tmp_path, errors=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not records(tmp_path / "runs" / "small") and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors.decode()
    assert "next: bigtickets run" in errors.decode()
    before = records(tmp_path / "runs" / "small")
    assert before
    finish("run", str(path), cwd=tmp_path)
    after = records(tmp_path / "runs" / "small")
    assert len(after) == 6
    assert {i: after[i] for i in before} == before, "a finished trial was run again"
    stamp = {i: r["finished"] for i, r in after.items()}
    finish("run", str(path), cwd=tmp_path)
    assert {i: r["finished"] for i, r in records(tmp_path / "runs" / "small").items()} == stamp
