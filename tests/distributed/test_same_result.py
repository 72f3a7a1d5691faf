"""Nothing under `execution:` changes a result beyond rounding: real groups, real engines."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_study import HANG_S, records, write_study

from bigtickets.study.spec import ExecutionSpec

pytestmark = pytest.mark.distributed
STEP = Path(__file__).parents[2] / "launch" / "step.py"
TRAINING = {"max_steps": 6, "learning_rate": 1e-3, "batch_size": 10, "max_length": 24}


def run(words: list[str], ranks: int, cwd: Path) -> None:
    """One command on a torchrun group; with one rank without torchrun, as a user types it."""
    command = [sys.executable, "-m", "bigtickets"]
    if ranks > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        command = [sys.executable, *launcher, str(STEP)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=HANG_S
    )
    assert result.returncode == 0, result.stdout + result.stderr


def weights_and_logits(run_folder: Path) -> dict[str, np.ndarray]:
    """The dense model's trained weights and its predictions."""
    (trial,) = records(run_folder)
    predictions = load_file(run_folder / "trials" / trial / "predictions.safetensors")
    return {**load_file(run_folder / "weights" / f"{trial}.safetensors"), **predictions}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose dense model is trained by one plain process."""
    root = tmp_path_factory.mktemp("trained")
    path = write_study(root, training=TRAINING, execution={"threads": 1})
    run(["train", str(path), "--out", str(root / "reference")], 1, root)
    return root


# Each field of ExecutionSpec that takes part in training stands here at least once.
VARIANTS: list[tuple[int, dict[str, Any]]] = [
    (2, {}),
    (4, {}),
    (1, {"micro_batch": 1}),
    (1, {"micro_batch": 8, "zero": "auto", "processes_per_trial": "auto"}),
    (2, {"micro_batch": 3}),
    (1, {"attention": "eager"}),
    (1, {"gradient_checkpointing": True}),
    (1, {"precision": "bf16"}),
    (1, {"threads": 2, "checkpoint_every_s": 0}),
    (2, {"zero": 1}),
    (2, {"zero": 2, "micro_batch": 2}),
    (2, {"zero": 3}),
    (2, {"zero": 2, "offload": True}),
    (2, {"zero": 3, "offload": True, "checkpoint_every_s": 0}),
    (1, {"ds_config": "engine.json"}),
]
# `data_dir` says where the files of GLUE tasks lie: tests/unit/test_data.py.
ELSEWHERE = {"data_dir", "processes_per_trial"}


def test_every_execution_field_is_covered() -> None:
    used = {key for _, execution in VARIANTS for key in execution}
    assert used | ELSEWHERE == {f.name for f in fields(ExecutionSpec)}


@pytest.mark.parametrize(("ranks", "execution"), VARIANTS, ids=str)
def test_training_is_the_same(
    ranks: int, execution: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "root"))
    if "ds_config" in execution:
        text = (Path(__file__).parents[2] / "ds_configs" / "zero0.json").read_text()
        (root / "engine.json").write_text(text)
    path = write_study(root, training=TRAINING, execution=execution)
    run(["train", str(path), "--out", str(root / "other")], ranks, root)
    expected, found = weights_and_logits(root / "reference"), weights_and_logits(root / "other")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        scale = np.abs(value).max() + 1e-3
        assert np.abs(value - found[name]).max() <= 1e-5 * scale + 2e-5, name
    (record,) = records(root / "other").values()
    assert record["execution"]["world_size"] == ranks
    assert record["execution"]["threads"] == execution.get("threads", 1)


def test_the_study_runs_on_as_many_processes_as_it_asks_for(trained: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "root"))
    execution = {"processes_per_trial": 2, "threads": 1}
    tickets = {"ratios": [0, 0.5], "kinds": ["winning"]}
    path = write_study(root, training=TRAINING, execution=execution, tickets=tickets, seeds=[0])
    run(["run", str(path), "--out", str(root / "other")], 1, root)
    found = records(root / "other")
    assert {r["execution"]["world_size"] for r in found.values()} == {2}
    (dense,) = records(root / "reference")
    stored = [root / out / "weights" / f"{dense}.safetensors" for out in ("reference", "other")]
    expected, same = (load_file(path) for path in stored)
    for name, value in expected.items():
        scale = np.abs(value).max() + 1e-3
        assert np.abs(value - same[name]).max() <= 1e-5 * scale + 2e-5, name


@pytest.mark.parametrize(
    ("ranks", "execution"),
    [(2, {}), (4, {}), (1, {"micro_batch": 1}), (1, {"micro_batch": 3}), (2, {"micro_batch": 16})],
    ids=str,
)
def test_scores_and_tickets_are_the_same(
    ranks: int, execution: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "root"))
    out = str(root / "reference")
    one = scores_and_tickets(root, {}, 1, out)
    shutil.rmtree(Path(out) / "scores")
    shutil.rmtree(Path(out) / "tickets")
    other = scores_and_tickets(root, execution, ranks, out)
    for unit, expected in one[0].items():
        np.testing.assert_allclose(other[0][unit], expected, rtol=1e-5, err_msg=unit)
    assert other[1] == one[1]


def scores_and_tickets(
    root: Path, execution: dict[str, Any], ranks: int, out: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    path = write_study(
        root,
        training=TRAINING,
        execution=execution,
        tickets={"ratios": [0, 0.3, 0.6], "kinds": ["winning"]},
    )
    run(["score", str(path), "--out", out], ranks, root)
    for ratio in ("0.3", "0.6"):
        run(["prune", str(path), "--out", out, "--ratio", ratio], 1, root)
    (scores,) = Path(out).glob("scores/*/scores.safetensors")
    tickets = [json.loads(p.read_text()) for p in Path(out).glob("tickets/*.json")]
    return load_file(scores), {t["id"]: t["kept"] for t in tickets}
