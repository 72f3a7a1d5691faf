"""Every command of the README on a small study, typed as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file
from small_study import HANG_S, records, write_study

from bigtickets.tickets.surgery import load_pruned

pytestmark = pytest.mark.study
ROOT = Path(__file__).parents[2]


def bigtickets(*words: object, cwd: Path, code: int = 0) -> str:
    """Run a command; its output."""
    return typed([sys.executable, "-m", "bigtickets", *map(str, words)], cwd, code)


def typed(command: list[str], cwd: Path, code: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=HANG_S
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study."""
    root = tmp_path_factory.mktemp("study")
    write_study(root)
    bigtickets("plan", "study.yaml", cwd=root)
    assert not (root / "runs").exists(), "plan touches nothing"
    bigtickets("prefetch", "study.yaml", cwd=root)
    (root / "run.txt").write_text(bigtickets("run", "study.yaml", "-j", 2, cwd=root))
    return root


def test_run_ends_with_a_table_and_the_place_of_the_report(root: Path) -> None:
    output = (root / "run.txt").read_text()
    page = root / "runs" / "small" / "report" / "index.html"
    assert str(page) in output
    assert page.is_file()
    assert "winning" in output
    assert "[11/11" in output


def test_records_hold_what_they_should(root: Path) -> None:
    found = records(root / "runs" / "small")
    assert len(found) == 6
    for record in found.values():
        assert {"schema", "spec", "metrics", "counts", "timings", "peak_memory_gb"} <= set(record)
        assert {"throughput", "versions", "commit", "host", "attempt", "ticket"} <= set(record)
        folder = root / "runs" / "small" / "trials" / record["id"]
        assert len(list(folder.iterdir())) <= 10
        predictions = load_file(folder / "predictions.safetensors")
        accuracy = (predictions["logits"].argmax(1) == predictions["labels"]).mean()
        assert accuracy == pytest.approx(record["metrics"]["accuracy"])
    half = [r for r in found.values() if r["spec"]["ratio"] == 0.5]
    assert all(r["counts"]["heads"] == 4 and r["counts"]["neurons"] == 64 for r in half)
    assert all(0.49 < r["fractions"]["encoder"] < 0.51 for r in half)


def test_the_dense_model_learns(root: Path) -> None:
    dense = [r for r in records(root / "runs" / "small").values() if r["spec"]["kind"] == "dense"]
    losses = []
    for record in dense:
        path = root / "runs" / "small" / "trials" / record["id"] / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        losses.append(lines[0]["loss"] - lines[-2]["loss"])
    assert min(losses) > 0


def test_status(root: Path) -> None:
    facts = json.loads(bigtickets("status", "runs/small", "--json", cwd=root))
    assert facts["steps"] == {"done": 11, "running": 0, "waiting": 0, "failed": 0, "blocked": 0}
    shown = bigtickets("status", "runs/small", cwd=root)
    assert "11 done" in shown
    assert "next: bigtickets report" in shown


def test_logs_of_one_trial(root: Path) -> None:
    trial = next(iter(records(root / "runs" / "small")))
    shown = bigtickets("logs", "runs/small", trial[:8], cwd=root)
    assert trial in shown
    assert "done in" in shown
    assert "no such step" in bigtickets("logs", "runs/small", "zzz", cwd=root, code=2)


def test_retry_with_nothing_failed(root: Path) -> None:
    assert "0 failed" in bigtickets("retry", "runs/small", cwd=root)


def test_report_again(root: Path) -> None:
    bigtickets("report", "runs/small", cwd=root)
    table = pd.read_csv(root / "runs" / "small" / "report" / "table.csv")
    assert len(table) == 6
    assert len(pd.read_parquet(root / "runs" / "small" / "report" / "table.parquet")) == 6


def test_a_second_run_repeats_nothing(root: Path) -> None:
    before = records(root / "runs" / "small")
    bigtickets("run", "study.yaml", cwd=root)
    assert records(root / "runs" / "small") == before


def test_an_extended_study_runs_only_what_is_new(root: Path) -> None:
    before = records(root / "runs" / "small")
    tickets = {"ratios": [0, 0.25, 0.5], "kinds": ["winning", "random"]}
    write_study(root, tickets=tickets)
    assert "10 steps" not in bigtickets("plan", "study.yaml", cwd=root)
    bigtickets("run", "study.yaml", cwd=root)
    after = records(root / "runs" / "small")
    assert len(after) == 10
    assert {i: after[i] for i in before} == before
    write_study(root)


def test_single_steps(root: Path) -> None:
    scores = bigtickets("score", "study.yaml", "--out", "single", cwd=root).splitlines()
    assert any(line.endswith("record.json") and "/scores/" in line for line in scores)
    words = ("--kind", "winning", "--ratio", 0.5)
    bigtickets("train", "study.yaml", "--out", "single", *words, "--seed", 1, cwd=root)
    found = records(root / "single")
    same = records(root / "runs" / "small")
    for trial, record in found.items():
        assert record["metrics"] == same[trial]["metrics"]
        assert record["ticket"] == same[trial]["ticket"]


def test_a_pruned_model_is_saved_and_loads(root: Path) -> None:
    words = ("--kind", "winning", "--ratio", 0.5, "--save", "pruned")
    bigtickets("prune", "study.yaml", *words, cwd=root)
    model = load_pruned(root / "pruned")
    assert sum(p.numel() for p in model.parameters()) > 0
    assert sorted(p.name for p in (root / "pruned").iterdir()).count("model.safetensors") == 1
    bigtickets("prune", "study.yaml", *words, cwd=root, code=2)


def test_score_under_torchrun(root: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(ROOT / "launch" / "step.py")]
    typed([*command, "score", "study.yaml", "--out", "two-ranks"], root)
    one = load_file(next((root / "runs" / "small").glob("scores/*/scores.safetensors")))
    two = load_file(next((root / "two-ranks").glob("scores/*/scores.safetensors")))
    assert one.keys() == two.keys()


def test_wrong_choices_of_single_steps(root: Path) -> None:
    assert "--ratio 0.4" in bigtickets(
        "train", "study.yaml", "--kind", "winning", "--ratio", 0.4, cwd=root, code=2
    )
    assert "--model tini" in bigtickets("score", "study.yaml", "--model", "tini", cwd=root, code=2)
    assert "--seed 9" in bigtickets("train", "study.yaml", "--seed", 9, cwd=root, code=2)


def test_another_study_may_not_take_the_folder(root: Path) -> None:
    (root / "other").mkdir(exist_ok=True)
    path = write_study(root, study="other")
    message = bigtickets("run", path, "--out", "runs/small", cwd=root, code=2)
    assert "choose another --out" in message
    write_study(root)


def test_doctor(root: Path) -> None:
    assert "FAILED" not in bigtickets("doctor", cwd=root)
