"""Pre-trained weights with a fresh head, and the control without them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_study import write_model
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from bigtickets.errors import DamagedError, InputError
from bigtickets.study.spec import ModelSpec
from bigtickets.training.models import load_model, randomize


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder = write_model(tmp_path_factory.mktemp("model"), layers=1, hidden=16, heads=2)
    return ModelSpec(name="tiny", path=str(folder), identity="local:x")


def test_the_encoder_is_the_files_and_the_head_is_the_seeds(spec: ModelSpec) -> None:
    stored = load_file(Path(spec.path) / "model.safetensors")
    first, same, other = (load_model(spec, 3, seed) for seed in (0, 0, 1))
    encoder = {k: v for k, v in first.named_parameters() if k.startswith("bert.")}
    for name, value in encoder.items():
        assert torch.equal(value, stored[name.removeprefix("bert.")]), name
    assert torch.equal(first.classifier.weight, same.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert not first.classifier.bias.any()


def test_weights_under_foreign_names_are_refused(spec: ModelSpec, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "foreign", layers=1, hidden=16, heads=2)
    stored = load_file(folder / "model.safetensors")
    renamed = {f"other.{k}": v for k, v in stored.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    foreign = ModelSpec(name="foreign", path=str(folder), identity="local:y")
    with pytest.raises(InputError, match="encoder weights are not in the checkpoint"):
        load_model(foreign, 2, 0)


def test_another_tasks_head_is_left_out(spec: ModelSpec, tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(spec.path, num_labels=5)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    other = ModelSpec(name="other", path=str(tmp_path), identity="local:z")
    network = load_model(other, 3, 0)
    assert torch.equal(network.classifier.weight, load_model(spec, 3, 0).classifier.weight)


def test_weights_of_another_shape_are_damage(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "wide", layers=1, hidden=16, heads=2)
    config = BertConfig.from_pretrained(folder)
    config.intermediate_size += 2
    config.save_pretrained(folder)
    wide = ModelSpec(name="wide", path=str(folder), identity="local:w")
    with pytest.raises(DamagedError, match=r"is \(32.*config.json makes it \(34"):
        load_model(wide, 2, 0)


def test_without_pretrained_weights_norms_start_as_norms_do(spec: ModelSpec) -> None:
    network = load_model(spec, 2, 0)
    before = {k: v.clone() for k, v in network.named_parameters()}
    randomize(network, 0)
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(network.get_parameter(query), before[query])
