"""Weights that are read one after the other are those of a model that is loaded whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_study import write_model
from tiny_models import FAMILIES, random_kept, tiny
from transformers import BertConfig, BertForSequenceClassification, conversion_mapping

from bigtickets.errors import DamagedError, InputError
from bigtickets.study.spec import ModelSpec
from bigtickets.tickets.shapes import units_per_layer
from bigtickets.tickets.surgery import remove_units, selections, shrink
from bigtickets.tickets.units import model_shapes, unit_layers
from bigtickets.training.hollow import (
    fill,
    hollow_model,
    names_of,
    pretrained_source,
    stored_source,
)
from bigtickets.training.models import load_model, random_values, randomize
from bigtickets.training.tensor_files import places_in, read_tensor, stream, write_stream

SEED = 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", layers=2, hidden=32, heads=4)


def spec_of(folder: Path) -> ModelSpec:
    return ModelSpec(name="tiny", path=str(folder), identity=f"local:{folder}")


def rename(folder: Path, change) -> None:
    """Store the weights under other names; None drops one."""
    stored = load_file(folder / "model.safetensors")
    renamed = {new: v for k, v in stored.items() if (new := change(k)) is not None}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})


def split(folder: Path) -> None:
    """Several files and an index, as large models come."""
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, places = sorted(stored), {}
    for i in range(3):
        file = f"model-{i + 1:05d}-of-00003.safetensors"
        places |= dict.fromkeys(names[i::3], file)
        save_file({n: stored[n] for n in names[i::3]}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places})
    )


def with_head(folder: Path) -> None:
    """A fine-tuned classifier: names with the base model's prefix, and a head of its own."""
    config = BertConfig.from_pretrained(folder, num_labels=2)
    torch.manual_seed(1)
    BertForSequenceClassification(config).save_pretrained(folder)


LAYOUTS = {
    "encoder": lambda folder: None,
    "shards": split,
    "classifier": with_head,
    "legacy names": lambda folder: rename(
        folder,
        lambda k: k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ),
    ),
    "no pooler": lambda folder: rename(folder, lambda k: None if "pooler" in k else k),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pruned", [False, True])
def test_a_filled_model_is_a_loaded_one(
    folder: Path, layout: str, pruned: bool, capsys: pytest.CaptureFixture
) -> None:
    LAYOUTS[layout](folder)
    loaded, hollow = load_model(spec_of(folder), 2, SEED), hollow_model(spec_of(folder), 2)
    assert all(p.is_meta for p in hollow.parameters())
    source = pretrained_source(spec_of(folder), hollow, 2, SEED)
    cut = {}
    if pruned:
        random = np.random.default_rng(0)
        kept = {"heads": random.random((2, 4)) < 0.5, "neurons": random.random((2, 64)) < 0.5}
        kept["heads"][0] = False
        cut = selections(hollow, kept)
        shrink(hollow, kept)
        remove_units(loaded, kept)
    fill(hollow, source.values(names_of(hollow), cut))
    expected = loaded.state_dict()
    assert hollow.state_dict().keys() == expected.keys()
    for name, value in hollow.state_dict().items():
        assert torch.equal(value, expected[name]), name
    ids = torch.arange(6)[None]
    assert torch.equal(hollow(ids).logits, loaded(ids).logits)
    assert "at once" not in capsys.readouterr().out  # read one after the other, not whole


def test_a_model_in_another_form_is_read_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delattr(conversion_mapping, "get_model_conversion_mapping")
    loaded, hollow = load_model(spec_of(folder), 2, SEED), hollow_model(spec_of(folder), 2)
    fill(hollow, pretrained_source(spec_of(folder), hollow, 2, SEED).values(names_of(hollow), {}))
    for name, value in hollow.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert "tiny: the first process reads all weights at once" in capsys.readouterr().out


def test_random_weights_are_the_same_either_way(folder: Path) -> None:
    loaded, hollow = load_model(spec_of(folder), 2, SEED), hollow_model(spec_of(folder), 2)
    randomize(loaded, 3)
    fill(hollow, random_values(hollow, 3))
    for name, value in hollow.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_a_missing_shard_is_named(folder: Path) -> None:
    split(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    hollow = hollow_model(spec_of(folder), 2)
    with pytest.raises(DamagedError, match=r"model-00002-of-00003.safetensors.* missing"):
        pretrained_source(spec_of(folder), hollow, 2, SEED)


def test_weights_that_are_not_the_models_are_refused(folder: Path) -> None:
    hollow = hollow_model(spec_of(folder), 2)
    shutil.copytree(folder, folder.with_name("copy"))
    rename(folder, lambda k: f"other.{k}")
    with pytest.raises(InputError, match="encoder weights are not in the checkpoint"):
        pretrained_source(spec_of(folder), hollow, 2, SEED)
    stored = load_file(folder.with_name("copy") / "model.safetensors")
    stored["encoder.layer.0.output.dense.bias"] = torch.zeros(3)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DamagedError, match=r"layer.0.output.dense.bias is \(3,\).*\(32,\)"):
        pretrained_source(spec_of(folder), hollow, 2, SEED)


def test_a_file_written_tensor_by_tensor(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    shapes = {"b": (5, 3), "a": (7,), "none": (0, 4), "one": ()}
    tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    path = tmp_path / "some.safetensors"
    write_stream(path, stream(tensors))
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
        assert torch.equal(read_tensor(places_in(path)[name]), tensor)
    for name, tensor in stored_source(path).values(sorted(tensors), {}):
        assert torch.equal(tensors[name], tensor)
    last = places_in(path)["one"]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DamagedError, match=r"some.safetensors: cut short"):
        read_tensor(last)


@pytest.mark.parametrize("content", [b"", b"weights?", b"\x40" + 7 * b"\0" + b'{"a": '])
def test_what_is_no_safetensors_file_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(DamagedError, match=r"w: damaged or cut short"):
        places_in(tmp_path / "w")


@pytest.mark.parametrize("block", [1, 10, 10**6])
def test_parts_of_a_tensor_are_cut_while_it_is_read(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigtickets.training.tensor_files.BLOCK_NUMBERS", block)
    whole = torch.arange(60.0).view(12, 5)
    save_file({"w": whole.bfloat16()}, tmp_path / "w.safetensors")
    rows, columns = torch.tensor([0, 3, 4, 11]), torch.tensor([1, 4])
    for dims in ((), (rows,), (None, columns), (rows, columns)):
        expected = whole[rows] if dims and dims[0] is not None else whole
        expected = expected[:, columns] if len(dims) == 2 else expected
        found = read_tensor(places_in(tmp_path / "w.safetensors")["w"], dims)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "vit"])
def test_every_familys_weights_are_found_and_cut(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny(family, dtype=torch.float32).save_pretrained(tmp_path / family)
    model = ModelSpec(name=family, path=str(tmp_path / family), identity=f"local:{tmp_path}")
    loaded, hollow = load_model(model, 3, SEED), hollow_model(model, 3)
    source = pretrained_source(model, hollow, 3, SEED)
    sizes = model_shapes(loaded)
    layers = len(unit_layers(loaded))
    counts = {unit: units_per_layer(sizes, unit) for unit in ("heads", "neurons")}
    kept = random_kept(**{unit: (layers, count) for unit, count in counts.items()})
    for mask_LN in kept.values():
        mask_LN[:, 0] = True
    cut = selections(hollow, kept)
    shrink(hollow, kept)
    remove_units(loaded, kept)
    fill(hollow, source.values(names_of(hollow), cut))
    for name, value in hollow.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    ids = torch.arange(4, 10)[None]
    loaded.config.pad_token_id = hollow.config.pad_token_id = 1
    assert torch.equal(hollow(ids).logits, loaded(ids).logits)
    assert "at once" not in capsys.readouterr().out
