"""Nothing under `execution:` changes a result beyond rounding: real groups, real engines.

Each number of ranks is one launched group that trains all its variants, as a warm worker does.
"""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_study import HANG_S, records, write_study

from bigtickets.running.commands import prepare
from bigtickets.running.signals import Stop
from bigtickets.study.spec import ExecutionSpec

pytestmark = pytest.mark.distributed
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("trials_rank.py")
TRAINING = {"max_steps": 6, "learning_rate": 1e-3, "batch_size": 10, "max_length": 24}

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
ELSEWHERE = {"data_dir"}


def typed(*words: str, cwd: Path) -> None:
    """A command as a user types it."""
    succeed([sys.executable, "-m", "bigtickets", *words], cwd)


def succeed(command: list[str], cwd: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=HANG_S
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`reference`, trained by one plain process, and a run folder for each variant, trained too."""
    root = tmp_path_factory.mktemp("trained")
    path = write_study(root, training=TRAINING, execution={"threads": 1})
    typed("train", str(path), "--out", "reference", cwd=root)
    (root / "engine.json").write_text((ROOT / "ds_configs" / "zero0.json").read_text())
    for number, (_, execution) in enumerate(VARIANTS):
        path = write_study(root, training=TRAINING, execution=execution)
        prepare(path, root / str(number), Stop())
    for ranks in (1, 2, 4):
        folders = [str(root / str(i)) for i, variant in enumerate(VARIANTS) if variant[0] == ranks]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        succeed([sys.executable, *launcher, str(SCRIPT), *folders], root)
    return root


def same_model(one: Path, other: Path) -> None:
    """Weights of the dense model that `one` trained, and its predictions, are those in `other`."""
    (trial,) = records(one)
    for name in (f"weights/{trial}.safetensors", f"trials/{trial}/predictions.safetensors"):
        expected, found = load_file(one / name), load_file(other / name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            scale = np.abs(value).max() + 1e-3
            assert np.abs(value - found[key]).max() <= 1e-5 * scale + 2e-5, key


def test_every_execution_field_is_covered() -> None:
    used = {key for _, execution in VARIANTS for key in execution}
    assert used | ELSEWHERE == {f.name for f in fields(ExecutionSpec)}


@pytest.mark.parametrize("number", range(len(VARIANTS)), ids=lambda i: str(VARIANTS[i]))
def test_training_is_the_same(number: int, trained: Path) -> None:
    ranks, execution = VARIANTS[number]
    same_model(trained / "reference", trained / str(number))
    (record,) = records(trained / str(number)).values()
    assert record["execution"]["world_size"] == ranks
    assert record["execution"]["threads"] == execution.get("threads", 1)


def test_a_study_runs_on_as_many_processes_as_it_asks_for(trained: Path) -> None:
    path = write_study(
        trained,
        training=TRAINING,
        execution={"processes_per_trial": 2, "threads": 1},
        tickets={"ratios": [0, 0.5], "kinds": ["winning"]},
        seeds=[0],
    )
    typed("run", str(path), "--out", "study", cwd=trained)
    same_model(trained / "reference", trained / "study")
    found = records(trained / "study").values()
    assert [record["execution"]["world_size"] for record in found] == [2, 2]
