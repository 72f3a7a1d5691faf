"""The training path of every text family: loading, dropout, batches."""

import copy

import pytest
import torch
from tiny_models import CONFIGS, FAMILIES, examples, padded
from transformers import AutoModel

from bigtickets.errors import InputError
from bigtickets.running.prefetch import check_models
from bigtickets.running.steps.prepared import check_tokens
from bigtickets.study.spec import ModelSpec, StudySpec
from bigtickets.training.dropout import MaskKey, install_dropout
from bigtickets.training.evaluation import model_inputs
from bigtickets.training.loop import example_losses
from bigtickets.training.models import load_model, randomize
from bigtickets.training.splits import Split

TEXT = [family for family in FAMILIES if family != "vit"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder per family with a pre-trained model, which has no head."""
    root = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        AutoModel.from_config(copy.deepcopy(CONFIGS[family])).save_pretrained(root / family)
    return root


def loaded(folders, family, seed=0):
    return load_model(ModelSpec(family, str(folders / family), family), 3, seed)


def norms(network):
    found = [m for m in network.modules() if type(m).__name__.endswith(("LayerNorm", "RMSNorm"))]
    assert found
    return found


@pytest.mark.parametrize("family", TEXT)
def test_a_fresh_head_on_the_checkpoint(folders, family):
    network, other = loaded(folders, family, seed=0), loaded(folders, family, seed=1)
    checkpoint = AutoModel.from_pretrained(folders / family).state_dict()
    prefix = network.base_model_prefix + "."
    same = {
        name.removeprefix(prefix)
        for name, tensor in network.state_dict().items()
        if torch.equal(tensor, other.state_dict()[name]) and name.startswith(prefix)
    }
    assert same >= {name for name in checkpoint if "pooler" not in name}
    heads = [name for name, _ in network.named_parameters() if not name.startswith(prefix)]
    weights = [name for name in heads if network.get_parameter(name).dim() > 1]
    assert weights
    assert all(network.get_parameter(each).std() > 0.01 for each in weights)
    assert not torch.equal(network.get_parameter(weights[0]), other.get_parameter(weights[0]))
    assert all((norm.weight == 1).all() for norm in norms(network))
    assert not getattr(network.config, "use_cache", False)


@pytest.mark.parametrize("family", TEXT)
def test_random_weights_are_those_of_a_fresh_model(folders, family):
    network = loaded(folders, family)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    randomize(network, seed=0)
    assert all((norm.weight == 1).all() for norm in norms(network))
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            assert 0.01 < parameter.std() < 0.03, name
            assert not torch.equal(parameter, before[name]), name
        elif "norm" not in name.lower() and "ln_" not in name:
            assert not parameter.any(), name


@pytest.mark.parametrize("family", TEXT)
def test_dropout_does_not_see_the_batch(folders, family):
    """Losses of a training step: the same in a padded batch and one unpadded example at a time."""
    network = loaded(folders, family).double().train()
    # Eager attention in float64 has NaN for padding that sees nothing; SDPA has not.
    key = MaskKey(seed=3)
    install_dropout(network, 0.3, key)
    data = examples(4)

    def losses(batch, indices):
        inputs, labels_B = padded(batch)
        key.set(7, torch.tensor(indices))
        return example_losses(network(**model_inputs(network, inputs)).logits, labels_B)

    together = losses(data, [0, 1, 2, 3])
    alone = torch.cat([losses([each], [index]) for index, each in enumerate(data)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    if family not in ("opt", "llama", "mistral", "qwen2", "qwen3"):  # they have no dropout modules
        network.eval()
        assert (losses(data, [0, 1, 2, 3]) - together).abs().max() > 1e-4


def test_segments_go_where_they_are_told_apart(folders):
    inputs, _ = padded(examples(2))
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    given = {family: model_inputs(loaded(folders, family), inputs) for family in ("bert", "gpt2")}
    assert "token_type_ids" in given["bert"]
    assert list(given["gpt2"]) == ["input_ids", "attention_mask"]


@pytest.mark.parametrize(("pad_id", "token"), [(60, 5), (1, 60)])
def test_a_token_without_an_embedding_is_named(folders, pad_id, token):
    tokens = torch.tensor([4, token], dtype=torch.int32)
    offsets, labels = torch.tensor([0, 2]), torch.tensor([0])
    network = loaded(folders, "llama")
    check_tokens(network, Split("train", tokens.clamp(max=59), offsets, None, labels, 1, 3), "x")
    with pytest.raises(InputError, match=r"model x: .* token 60, but the model has 60"):
        check_tokens(network, Split("train", tokens, offsets, None, labels, pad_id, 3), "x")


def test_a_model_of_images_is_refused(folders):
    model = ModelSpec("v", str(folders / "vit"), "vit")
    with pytest.raises(InputError, match="takes images"):
        check_models(StudySpec("x", (model,), ()))
