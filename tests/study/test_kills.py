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
from small_study import HANG_S, records, write_study

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
    _, errors = process.communicate(timeout=HANG_S)
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
    kept = ("id", "spec", "metrics", "majority_score", "degenerate")
    return {key: record[key] for key in (*kept, "counts", "fractions", "ticket")}


def metric_lines(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "examples_per_s"} for line in lines]


def test_a_trial_killed_at_a_random_step_ends_bit_identical(tmp_path: Path) -> None:
    path = write_study(
        tmp_path, training=TRAINING, execution={"checkpoint_every_s": 0, "threads": 1}
    )
    finish("train", str(path), "--out", "whole", cwd=tmp_path)
    draw = random.Random(0)
    for _ in range(3):
        process = start("train", str(path), "--out", "killed", cwd=tmp_path)
        assert wait_for_steps(tmp_path / "killed", process, draw.randint(1, 15))
        kill_tree(process)
    finish("train", str(path), "--out", "killed", cwd=tmp_path)
    (whole,), (killed,) = records(tmp_path / "whole"), records(tmp_path / "killed")
    first = records(tmp_path / "whole")[whole]
    second = records(tmp_path / "killed")[killed]
    assert len(second["resumed_at"]) == 3, "an attempt did not go on from a checkpoint"
    assert science(first) == science(second)
    for name in (f"weights/{whole}.safetensors", f"trials/{whole}/predictions.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    lines = [tmp_path / run / "trials" / whole / "metrics.jsonl" for run in ("whole", "killed")]
    assert metric_lines(lines[0]) == metric_lines(lines[1])


def wait_for_steps(run: Path, process: subprocess.Popen, more: int) -> bool:
    """Wait until this process has gone some steps further; False if it finished first."""
    first = newest_step(run)
    while process.poll() is None:
        if newest_step(run) >= first + more:
            return True
        time.sleep(0.005)
    return False


def newest_step(run: Path) -> int:
    """Step of the newest checkpoint; every step has one."""
    found = run.glob("work/*/attempt-*/checkpoints/step-*")
    return max((int(p.name.removeprefix("step-")) for p in found if p.suffix != ".tmp"), default=0)


def test_a_study_killed_ten_times_finishes_with_the_same_records(tmp_path: Path) -> None:
    path = write_study(
        tmp_path, seeds=[0, 1, 2, 3, 4, 5], execution={"checkpoint_every_s": 0, "threads": 1}
    )
    finish("run", str(path), "--out", "whole", "-j", "2", cwd=tmp_path)
    draw = random.Random(1)
    for life in range(10):
        process = start("run", str(path), "--out", "killed", "-j", "2", cwd=tmp_path)
        wait_for_progress(tmp_path / "killed", process, draw, early=life % 3 == 0)
        assert process.poll() is None, "the study was over before its tenth kill"
        if life % 3 == 2:
            # Only the parent dies: its workers must notice and stop.
            process.send_signal(signal.SIGKILL)
            process.wait()
        else:
            kill_tree(process)
    finish("run", str(path), "--out", "killed", "-j", "2", cwd=tmp_path)
    whole, killed = records(tmp_path / "whole"), records(tmp_path / "killed")
    assert len(whole) == 18
    assert any(record["resumed_at"] for record in killed.values())
    assert {i: science(r) for i, r in whole.items()} == {i: science(r) for i, r in killed.items()}
    assert not list((tmp_path / "killed" / "claims").iterdir())
    assert not list((tmp_path / "killed" / "work").glob("*"))


def wait_for_progress(
    run: Path, process: subprocess.Popen, draw: random.Random, early: bool
) -> None:
    """Some seconds after the start, often before any work; or a moment after a step or two."""
    if early:
        time.sleep(draw.uniform(0.5, 6))
        return
    wanted = len(results(run)) + draw.choice((1, 2))
    while process.poll() is None and len(results(run)) < wanted:
        time.sleep(0.02)
    time.sleep(draw.uniform(0, 0.7))


def results(run: Path) -> list[Path]:
    """What is finished: trials, scores and tickets."""
    return [*run.glob("trials/*/record.json"), *run.glob("scores/*"), *run.glob("tickets/*.json")]


def test_ctrl_c_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    process = start("run", str(path), cwd=tmp_path, errors=subprocess.PIPE)
    deadline = time.monotonic() + HANG_S
    while not records(tmp_path / "runs" / "small") and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANG_S)
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
