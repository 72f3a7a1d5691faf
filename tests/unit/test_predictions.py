"""Predictions as examples: that they give the recorded score again, for every headline."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _synthetic_run import shared_run
from safetensors.numpy import save_file

from bigtickets.analysis.predictions import examples_of_cell
from bigtickets.analysis.sections.shown import of_cell
from bigtickets.analysis.table import read_table
from bigtickets.study.folder import RunFolder
from bigtickets.training.metrics import evaluate_splits

CLASSES = ["accuracy", "f1", "matthews", "accuracy_f1"]
NUMBERS = ["pearson", "spearman", "pearson_spearman"]


def write(folder: RunFolder, name: str, splits: list[tuple[np.ndarray, np.ndarray]]) -> None:
    tensors = {}
    for i, (logits, labels) in enumerate(splits):
        suffix = f"_{i}" if i else ""
        tensors |= {f"logits{suffix}": logits, f"labels{suffix}": labels}
    folder.trial(name).mkdir(parents=True)
    save_file(tensors, folder.trial(name) / "predictions.safetensors")


def made_up(metric: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if metric in NUMBERS:
        labels = rng.random(rows).astype(np.float32)
        return (labels + 0.3 * rng.standard_normal(rows))[:, None].astype(np.float32), labels
    labels = rng.integers(0, 2, rows)
    logits = rng.standard_normal((rows, 2)).astype(np.float32)
    logits[np.arange(rows), labels] += 0.7
    return logits, labels


@pytest.mark.parametrize("metric", CLASSES + NUMBERS)
@pytest.mark.parametrize("rows", [(80,), (80, 50)], ids=["one split", "two splits"])
def test_the_recorded_score_comes_out(tmp_path: Path, metric: str, rows: tuple[int, ...]) -> None:
    folder = RunFolder(tmp_path)
    splits = [made_up(metric, count, seed) for seed, count in enumerate(rows)]
    write(folder, "a", splits)
    named = [(str(i), *split) for i, split in enumerate(splits)]
    recorded = evaluate_splits(metric, named).metrics
    trials = pd.DataFrame({"id": ["a"], "metric": metric} | recorded)
    for value in ("score", "loss"):
        examples, why = examples_of_cell(folder, trials, value)
        assert examples is not None, why
        again = examples.scores("a", np.ones((1, sum(rows))))
        assert again == pytest.approx(recorded[value], abs=1e-6)
        resampled = examples.scores("a", examples.bootstrap_weights(50, 0))
        assert 0 < resampled.std() < 0.2


def test_a_cell_of_the_run() -> None:
    trials = of_cell(read_table(shared_run()), ("L3", "movie", 1.0))
    examples, why = examples_of_cell(shared_run(), trials)
    assert why == ""
    assert examples is not None
    assert all(name in examples for name in trials["id"])


def test_the_loss_needs_no_module(tmp_path: Path) -> None:
    folder, (logits, labels) = RunFolder(tmp_path), made_up("accuracy", 20, 0)
    write(folder, "a", [(logits, labels)])
    loss = evaluate_splits("accuracy", [("v", logits, labels)]).metrics["loss"]
    trials = pd.DataFrame({"id": ["a"], "metric": "module:mine", "score": 0.5, "loss": loss})
    assert "runs no code" in examples_of_cell(folder, trials)[1]
    assert examples_of_cell(folder, trials, "loss")[0] is not None
    assert examples_of_cell(folder, trials.assign(loss=float("nan")), "loss")[1] == (
        "no trial has a loss"
    )


def test_why_there_are_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, "a", [made_up("accuracy", 20, 0)])
    write(folder, "b", [made_up("accuracy", 30, 0)])
    trials = pd.DataFrame({"id": ["a", "b"], "metric": "accuracy", "score": 0.5})
    for rows, words in (
        (trials, "different examples"),
        (trials[:1].assign(score=0.01), "do not give the recorded scores"),
        (trials.assign(id=["a", "c"]), "1 trials have no readable predictions"),
        (trials.assign(metric="bleu"), "bleu is not known"),
    ):
        examples, why = examples_of_cell(folder, rows)
        assert examples is None
        assert words in why
