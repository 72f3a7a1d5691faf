import copy
import json

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, KERNELS, batch_for, examples, logits, padded, random_kept, tiny
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification

import bigtickets
from bigtickets.errors import DamagedError, InputError
from bigtickets.study.spec import TicketsSpec
from bigtickets.tickets.families import model_parameters
from bigtickets.tickets.stand_ins import BiasOnly, NoChannels, NoHeads
from bigtickets.tickets.surgery import (
    load_pruned,
    masked,
    remove_units,
    save_pruned,
    selections,
    shrink,
    slice_weights,
)
from bigtickets.tickets.ticket import cut_ticket
from bigtickets.tickets.units import model_shapes

HALF = random_kept(seed=1, heads=(3, 4), neurons=(3, 20))
assert all(mask.any(1).all() for mask in HALF.values())
EMPTIED = {unit: mask.copy() for unit, mask in HALF.items()}
EMPTIED["heads"][0] = False
EMPTIED["neurons"][1] = False
EMPTIED["heads"][2] = EMPTIED["neurons"][2] = False
BLOCKS = {"heads": HALF["heads"], "blocks": np.array([[True], [False], [True]])}
NOTHING = {"heads": np.zeros((3, 4), bool), "blocks": np.zeros((3, 1), bool)}
ONE_EACH = {"heads": np.eye(3, 4, dtype=bool), "neurons": np.eye(3, 20, dtype=bool)}
TICKETS = {
    "half": HALF,
    "emptied": EMPTIED,
    "blocks": BLOCKS,
    "nothing": NOTHING,
    "one_each": ONE_EACH,
}


def ticket(ratio=0.5, **spec):
    """A ticket for tiny models, in which layer 0 has neither heads nor neurons."""
    spec = TicketsSpec(min_heads=0, min_neurons=0, **spec)
    order = {"heads": np.arange(12.0).reshape(3, 4), "neurons": np.arange(60.0).reshape(3, 20)}
    shapes = model_shapes(tiny())
    return cut_ticket(
        order,
        shapes,
        spec,
        "winning",
        ratio,
        0,
        parameters=model_parameters(shapes, 3),
        length=8,
        provenance={},
    )


@pytest.mark.parametrize(("family", "attention"), KERNELS)
def test_removed_equals_masked(family, attention):
    model = tiny(family, attention, torch.float32)
    dense = logits(model)
    whole = attention == "sdpa" or (family, "sdpa") not in KERNELS
    for name in TICKETS if whole else ("emptied", "blocks"):
        kept = TICKETS[name]
        with masked(model, kept):
            expected = logits(model)
        assert (expected - dense).abs().max() > 1e-3, name
        assert torch.equal(logits(model), dense), name  # masks are gone
        removed = remove_units(copy.deepcopy(model), kept)
        torch.testing.assert_close(logits(removed), expected, rtol=0, atol=1e-5, msg=name)
        assert all(parameter.numel() for parameter in removed.parameters()), name


def test_masks_multiply_by_zero():
    """`masked` itself against weights set to 0: rows of the output projections' input."""
    model, zeroed = tiny(), tiny()
    for index, layer in enumerate(zeroed.base_model.encoder.layer):
        heads = torch.tensor(EMPTIED["heads"][index]).repeat_interleave(6)
        layer.attention.output.dense.weight.data *= heads
        layer.output.dense.weight.data *= torch.tensor(EMPTIED["neurons"][index])
    with masked(model, EMPTIED):
        torch.testing.assert_close(logits(model), logits(zeroed), rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["emptied", "blocks"])
def test_pruned_models_train_like_masked_ones(family, name):
    model, kept = tiny(family), TICKETS[name]
    removed = remove_units(copy.deepcopy(model), kept)
    inputs, labels_B = batch_for(model, examples(4))
    with masked(model, kept):
        cross_entropy(model(**inputs).logits, labels_B).backward()
    cross_entropy(removed(**inputs).logits, labels_B).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    expected = slice_weights(model, gradients, kept)
    for parameter_name, parameter in removed.named_parameters():
        if parameter_name in expected:
            torch.testing.assert_close(
                parameter.grad, expected[parameter_name], rtol=1e-5, atol=1e-6
            )
    trained = {name for name, parameter in removed.named_parameters() if parameter.grad is not None}
    assert trained == set(expected)


def test_what_stands_where_nothing_is_left():
    layers = remove_units(tiny(), EMPTIED).base_model.encoder.layer
    assert isinstance(layers[0].attention.self, NoHeads)
    assert isinstance(layers[0].attention.output.dense, BiasOnly)
    assert isinstance(layers[1].intermediate.dense, NoChannels)
    assert layers[1].output.dense.bias.shape == (24,)
    assert layers[1].attention.self.num_attention_heads == EMPTIED["heads"][1].sum()
    assert layers[1].attention.self.all_head_size == 6 * EMPTIED["heads"][1].sum()


@pytest.mark.parametrize("name", TICKETS)
def test_bf16_autocast_and_gradient_checkpointing(name):
    model = remove_units(tiny(dtype=torch.float32), TICKETS[name])
    inputs, _ = padded(examples(4))
    plain = model(**inputs).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(**inputs).logits.float(), plain, rtol=0.1, atol=0.1)
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    model.train()
    for dropout in [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]:
        dropout.p = 0
    torch.testing.assert_close(model(**inputs).logits, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_structure_without_weights(family):
    """Shrunk on the meta device and filled from a sliced state dict: the same model."""
    dense = tiny(family)
    with torch.device("meta"):
        empty = type(dense)(copy.deepcopy(dense.config))
    for name, kept in TICKETS.items():
        model, whole = copy.deepcopy(empty), copy.deepcopy(dense)
        weights = slice_weights(model, dense.state_dict(), kept)
        shrink(model, kept)
        assert all(parameter.is_meta for parameter in model.parameters())
        model.load_state_dict(weights, strict=True, assign=True)
        expected = remove_units(whole, kept).state_dict()
        assert list(expected) == list(model.state_dict()), name
        assert all(torch.equal(expected[key], each) for key, each in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["emptied", "blocks"])
def test_selections_name_what_changes(family, name):
    """Read off a model on the meta device: exactly the parameters that the ticket makes smaller."""
    dense = tiny(family)
    with torch.device("meta"):
        empty = type(dense)(copy.deepcopy(dense.config))
    found = selections(empty, TICKETS[name])
    before = {name: tuple(p.shape) for name, p in dense.named_parameters()}
    after = dict(remove_units(dense, TICKETS[name]).named_parameters())
    for parameter_name, shape in before.items():
        stay = found.pop(parameter_name, (None,) * len(shape))
        left = tuple(size if s is None else len(s) for size, s in zip(shape, stay, strict=True))
        assert (0 in left) == (parameter_name not in after), parameter_name
        assert 0 in left or left == tuple(after[parameter_name].shape), parameter_name
    assert not found


def test_flags_and_dtype_stay():
    model = tiny(dtype=torch.bfloat16).train()
    model.base_model.encoder.layer[0].output.dense.weight.requires_grad_(False)
    remove_units(model, HALF)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["bert.encoder.layer.0.output.dense.weight"]


def test_a_base_model_is_pruned_alike():
    model = tiny()
    base = copy.deepcopy(model.base_model)
    remove_units(base, HALF)
    expected = remove_units(model, HALF).base_model.state_dict()
    assert all(torch.equal(expected[key], tensor) for key, tensor in base.state_dict().items())


def test_pruning_twice_is_refused():
    model = remove_units(tiny(), HALF)
    for again in (remove_units, shrink):
        with pytest.raises(InputError, match="already"):
            again(model, HALF)


def test_the_dense_ticket_changes_nothing():
    model, dense = tiny(), tiny()
    remove_units(model, ticket(0.0).kept)
    assert torch.equal(logits(model), logits(dense))
    remove_units(model, HALF)  # and may be pruned


@pytest.mark.parametrize(
    ("family", "ratio", "dtype"),
    [(family, 0.5, torch.bfloat16) for family in FAMILIES]
    + [("bert", 0.0, torch.bfloat16), ("bert", 0.5, torch.float32), ("llama", 0.5, torch.float32)],
)
def test_file_round_trip_is_exact(tmp_path, family, ratio, dtype):
    model = remove_units(tiny(family, dtype=dtype), ticket(ratio).kept)
    save_pruned(model, None, tmp_path / "pruned", ticket(ratio))
    loaded = load_pruned(tmp_path / "pruned")
    assert type(loaded) is type(model)
    assert not loaded.training
    assert {name: p.dtype for name, p in loaded.named_parameters()} == {
        name: p.dtype for name, p in model.named_parameters()
    }
    assert torch.equal(logits(loaded), logits(model))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "config.json",
        "model.safetensors",
        "pruned",
    ]
    again = tmp_path / "again"
    save_pruned(loaded, None, again, ticket(ratio))
    assert (again / "config.json").read_text() == (tmp_path / "pruned/config.json").read_text()


@pytest.fixture
def saved(tmp_path):
    model = remove_units(tiny(), ticket().kept)
    save_pruned(model, None, tmp_path / "pruned", ticket())
    return tmp_path / "pruned"


def test_trained_further_and_saved_by_transformers(saved, tmp_path):
    model = load_pruned(saved)
    model.classifier.bias.data += 1
    model.save_pretrained(tmp_path / "trained")
    assert torch.equal(logits(load_pruned(tmp_path / "trained")), logits(model))


def test_the_package_has_load_pruned(saved):
    assert bigtickets.load_pruned is load_pruned
    assert bigtickets.load_pruned(str(saved)).config.bigtickets["hash"] == ticket().hash


def test_loading_moves_nobodys_random_numbers(saved):
    before = torch.random.get_rng_state()
    load_pruned(saved)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_loaded_model_cannot_be_pruned_again(saved):
    with pytest.raises(InputError, match="already"):
        remove_units(load_pruned(saved), HALF)


def test_transformers_alone_does_not_load_it_by_mistake(saved):
    with pytest.raises(RuntimeError, match="mismatch"):
        AutoModelForSequenceClassification.from_pretrained(saved)


def test_a_folder_with_files_is_not_written_over(saved):
    model = load_pruned(saved)
    with pytest.raises(InputError, match="not empty"):
        save_pruned(model, None, saved, ticket())
    with pytest.raises(ValueError, match="not the one"):
        save_pruned(model, None, saved.parent / "other", ticket(0.3))


def test_a_failed_save_leaves_nothing(tmp_path):
    model = remove_units(tiny(), ticket().kept)

    class Tokenizer:
        def save_pretrained(self, folder):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_pruned(model, Tokenizer(), tmp_path / "pruned", ticket())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bytes_kept", [0, 7, 500, -1])
def test_cut_weights_are_damage(saved, bytes_kept):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:bytes_kept])
    with pytest.raises(DamagedError, match=r"model\.safetensors"):
        load_pruned(saved)


def test_weights_of_another_ticket_are_damage(saved, tmp_path):
    other = remove_units(tiny(), ticket(0.3).kept)
    save_pruned(other, None, tmp_path / "other", ticket(0.3))
    (tmp_path / "other/model.safetensors").replace(saved / "model.safetensors")
    with pytest.raises(DamagedError, match=r"model\.safetensors"):
        load_pruned(saved)


def _edit(saved, change):
    config = json.loads((saved / "config.json").read_text())
    change(config)
    (saved / "config.json").write_text(json.dumps(config))


def test_a_changed_ticket_is_damage(saved):
    _edit(saved, lambda config: config["bigtickets"]["kept"]["neurons"][2].pop())
    with pytest.raises(DamagedError, match=r"config\.json"):
        load_pruned(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("bigtickets"), "from_pretrained"),
        (lambda config: config.update(model_type="t5"), "t5"),
        (lambda config: config.update(num_hidden_layers=2), "another model"),
        (lambda config: config.update(architectures=["Trap"]), "Trap"),
    ],
)
def test_what_is_not_a_pruned_model_is_refused(saved, change, message):
    _edit(saved, change)
    with pytest.raises(InputError, match=message):
        load_pruned(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(saved, name):
    (saved / name).unlink()
    with pytest.raises(InputError, match="no such file"):
        load_pruned(saved)
