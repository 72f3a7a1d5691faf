"""What a local model is: its files' content, wherever they lie."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_study import write_model

from bigtickets.errors import InputError
from bigtickets.study.fingerprint import local_model_identity


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), layers=1, hidden=16, heads=2)


def edited(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


CHANGES: dict[str, Callable[[Path], object]] = {
    "weights": lambda f: flip_last_byte(f / "model.safetensors"),
    "layer norm": lambda f: edited(f / "config.json", lambda c: c.update(layer_norm_eps=1e-5)),
    "vocabulary": lambda f: (f / "tokenizer.json").write_text("{}"),
    "lower case": lambda f: edited(
        f / "tokenizer_config.json", lambda c: c.update(do_lower_case=False)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_a_result_changes_the_identity(name: str, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "copy"))
    assert local_model_identity(folder, "models[0]") == local_model_identity(model, "models[0]")
    CHANGES[name](folder)
    assert local_model_identity(folder, "models[0]") != local_model_identity(model, "models[0]")


def test_what_tools_add_does_not(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "copy"))
    edited(folder / "config.json", lambda c: c.update(transformers_version="0.0"))
    (folder / "README.md").write_text("words")
    assert local_model_identity(folder, "models[0]") == local_model_identity(model, "models[0]")


def test_a_shard_that_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "copy"))
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="model-00002-of-00002"):
        local_model_identity(folder, "models[0]")
