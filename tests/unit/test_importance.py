import contextlib
import functools

import numpy as np
import pytest
import torch
from tiny_models import KERNELS, batch_for, examples, padded, tiny
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from bigtickets.errors import InputError
from bigtickets.study.spec import TicketsSpec
from bigtickets.tickets.families import unit_channels, units_per_layer, weights_per_unit
from bigtickets.tickets.importance import ImportancePass
from bigtickets.tickets.selection import select
from bigtickets.tickets.surgery import remove_units
from bigtickets.tickets.units import model_shapes, unit_layers

UNITS = ("heads", "neurons", "blocks")
EXAMPLES = examples(16)


def scored(model, data=EXAMPLES, micro_batch=5, granularity="example", units=UNITS, cls=None):
    """Scores of `data`, in padded micro-batches, as a caller computes them."""
    with (cls or ImportancePass)(model, units, granularity) as scoring:
        for start in range(0, len(data), micro_batch):
            inputs, labels_B = batch_for(model, data[start : start + micro_batch])
            loss_B = cross_entropy(model(**inputs).logits, labels_B, reduction="none")
            scoring.add(loss_B, torch.ones(len(labels_B)), inputs.get("attention_mask"))
    return scoring.scores()


def gate_gradients(model, example):
    """dL/dxi of each unit and token, T x N per layer: explicit gates, one unpadded example."""
    inputs, label = batch_for(model, [example])
    shapes, gates, handles = model_shapes(model), {}, []
    for layer in unit_layers(model):
        for unit in UNITS:
            linear = layer.attention_output if unit == "heads" else layer.ffn_output
            channels = unit_channels(shapes, unit)
            tokens = inputs["input_ids"].shape[1] if "input_ids" in inputs else 17
            gate_TN = torch.ones(tokens, units_per_layer(shapes, unit)).to(model.dtype)
            gates[unit, layer.index] = gate_TN.requires_grad_()
            hook = functools.partial(_gate, gate_TN, channels, unit == "blocks")
            register = linear.register_forward_hook if unit == "blocks" else None
            handles.append((register or linear.register_forward_pre_hook)(hook))
    loss = cross_entropy(model(**inputs).logits, label)
    for handle in handles:
        handle.remove()
    grads = torch.autograd.grad(loss, list(gates.values()))
    return dict(zip(gates, grads, strict=True))


def _gate(gate_TN, channels, output, module, args, *result):
    value = result[0] if output else args[0]
    gated = value * gate_TN.repeat_interleave(channels, dim=1)
    return gated if output else (gated,)


def reference(model, granularity, data=EXAMPLES):
    """Per-example scores E x L x N of each type, by the formula."""
    formula = {
        "example": lambda grad_TN: grad_TN.sum(0).abs(),
        "token": lambda grad_TN: grad_TN.abs().sum(0),
        "square": lambda grad_TN: grad_TN.sum(0) ** 2,
    }[granularity]
    layers = range(len(unit_layers(model)))
    gradients = [gate_gradients(model, example) for example in data]
    return {
        unit: torch.stack(
            [torch.stack([formula(each[unit, layer]) for layer in layers]) for each in gradients]
        ).numpy()
        for unit in UNITS
    }


def check_against_reference(model, granularity="example", micro_batch=5, cls=None, data=EXAMPLES):
    scores = scored(model, data, micro_batch, granularity, cls=cls)
    assert scores.count == len(data)
    for unit, expected_ELN in reference(model, granularity, data).items():
        np.testing.assert_allclose(scores.mean()[unit], expected_ELN.mean(0), rtol=1e-6)
        error_LN = expected_ELN.std(0, ddof=1) / np.sqrt(len(data))
        np.testing.assert_allclose(scores.standard_error()[unit], error_LN, rtol=1e-6)


@pytest.mark.parametrize(("family", "attention"), KERNELS)
def test_equals_explicit_gates_one_example_at_a_time(family, attention):
    # Eager attention in float64 has NaN for padding that sees nothing: no narrow windows there.
    wide = {"mistral": {"sliding_window": 40}, "modernbert": {"local_attention": 80}}
    changes = wide.get(family, {}) if attention == "eager" else {}
    model = tiny(family, attention, **changes)
    check_against_reference(model, micro_batch=3, data=EXAMPLES[:7])


@pytest.mark.parametrize("family", ["opt", "llama", "mistral", "qwen2", "qwen3"])
def test_a_decoder_does_not_see_the_side_of_padding(family):
    """Where positions are relative or counted from the mask; GPT-2 counts padding as text."""

    def padded_left(inputs):
        order = inputs["attention_mask"].argsort(dim=1, stable=True)
        return {name: tensor.gather(1, order) for name, tensor in inputs.items()}

    model = tiny(family)
    inputs, labels_B = padded(EXAMPLES[:6])
    means = []
    for each in (inputs, padded_left(inputs)):
        with ImportancePass(model, UNITS) as scoring:
            loss_B = cross_entropy(model(**each).logits, labels_B, reduction="none")
            scoring.add(loss_B, torch.ones(6))
        means.append(scoring.scores().mean())
    assert not torch.equal(inputs["input_ids"], padded_left(inputs)["input_ids"])
    for unit in UNITS:
        np.testing.assert_allclose(means[1][unit], means[0][unit], rtol=1e-5)


def test_gates_of_a_shared_layer_sum_over_its_depths():
    """An ALBERT of one layer run 3 times, against a BERT-like copy with layers of its own."""
    shared = tiny("albert", num_hidden_layers=3, num_hidden_groups=1)
    apart = tiny("albert", num_hidden_layers=3, num_hidden_groups=3)
    weights = shared.state_dict()
    for index in range(3):
        group = f"albert_layer_groups.{index}."
        weights |= {k.replace("albert_layer_groups.0.", group): v for k, v in weights.items()}
    apart.load_state_dict(weights)
    for example in EXAMPLES[:2]:
        sums = {}
        for (unit, _), grad_TN in gate_gradients(apart, example).items():
            sums[unit] = sums.get(unit, 0) + grad_TN
        for unit in UNITS:
            np.testing.assert_allclose(gate_gradients(shared, example)[unit, 0], sums[unit])
            score = scored(shared, [example]).mean()[unit]
            np.testing.assert_allclose(score[0], sums[unit].sum(0).abs(), rtol=1e-9)


@pytest.mark.parametrize("granularity", ["token", "square"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "opt", "llama"])
def test_other_granularities_equal_explicit_gates(family, granularity):
    check_against_reference(tiny(family), granularity)


class NeverZeroed(ImportancePass):
    """A mutant: each batch finds the gate gradients of those before it, as `.grad` would be."""

    def _stacked(self, unit):
        self.grad = getattr(self, "grad", {})
        self.grad[unit] = super()._stacked(unit) + self.grad.get(unit, 0)
        return self.grad[unit]


def test_gradients_kept_between_batches_would_be_noticed():
    check_against_reference(tiny(), micro_batch=4)
    with pytest.raises(AssertionError, match="Not equal"):
        check_against_reference(tiny(), micro_batch=4, cls=NeverZeroed)


def tickets(model, scores):
    """Every winning ticket, as bytes."""
    spec = TicketsSpec()
    weights = weights_per_unit(model_shapes(model))
    normalized = scores.normalized("layer")
    chosen = [select(normalized, weights, spec, "winning", ratio, 0) for ratio in spec.ratios]
    return [mask.tobytes() for each in chosen for mask in each.kept.values()]


@pytest.mark.parametrize("granularity", ["example", "token", "square"])
def test_micro_batch_does_not_matter(granularity):
    model = tiny(dtype=torch.float32)
    one, three, all16 = (
        scored(model, micro_batch=size, granularity=granularity) for size in (1, 3, 16)
    )
    for other in (three, all16):
        assert other.count == one.count == 16
        for unit in UNITS:
            np.testing.assert_allclose(other.mean()[unit], one.mean()[unit], rtol=1e-5)
        assert tickets(model, other) == tickets(model, one)


def test_legacy_batch_takes_the_absolute_value_of_the_batch():
    model = tiny()
    scores = scored(model, micro_batch=5, granularity="legacy_batch")
    assert scores.count == 4  # 5 + 5 + 5 + 1 examples
    gradients = [gate_gradients(model, example) for example in EXAMPLES]
    expected = [
        abs(sum(each["heads", 1].sum(0) for each in gradients[start : start + 5]))
        for start in range(0, 16, 5)
    ]
    np.testing.assert_allclose(scores.mean()["heads"][1], sum(expected) / 4, rtol=1e-6)
    error_N = np.std(torch.stack(expected).numpy(), axis=0, ddof=1) / 2
    np.testing.assert_allclose(scores.standard_error()["heads"][1], error_N, rtol=1e-6)


@pytest.mark.parametrize("granularity", ["example", "token", "square", "legacy_batch"])
def test_fillers_never_count(granularity):
    model = tiny()
    plain = scored(model, micro_batch=8, granularity=granularity)
    with ImportancePass(model, UNITS, granularity) as scoring:
        for start in (0, 8, 16):  # the last batch holds fillers only
            fillers = EXAMPLES[:3] if start < 16 else EXAMPLES[:4]
            batch = EXAMPLES[start : start + 8]
            inputs, labels_B = padded(batch + fillers)
            loss_B = cross_entropy(model(**inputs).logits, labels_B, reduction="none")
            loss_B = loss_B * torch.tensor([1.0] * len(batch) + [float("nan")] * len(fillers))
            weight_B = torch.tensor([1] * len(batch) + [0] * len(fillers))
            scoring.add(loss_B, weight_B, inputs["attention_mask"])
    filled = scoring.scores()
    assert filled.count == plain.count
    for unit in UNITS:
        np.testing.assert_allclose(filled.mean()[unit], plain.mean()[unit], rtol=1e-6)


def test_padding_counts_for_nothing_even_with_a_gradient():
    """A loss that reads padded positions gives them a gradient; `token` must not see it."""
    model = tiny()
    inputs, _ = padded(EXAMPLES[:2])
    lengths = inputs["attention_mask"].sum(1)
    assert lengths[0] != lengths[1]

    def token_scores(keep):
        with ImportancePass(model, granularity="token") as scoring:
            hidden_BTH = model.base_model(**inputs).last_hidden_state
            loss_B = (hidden_BTH * keep[..., None]).pow(3).sum((1, 2))
            scoring.add(loss_B, torch.ones(2), inputs["attention_mask"])
        return scoring.scores().mean()["neurons"][-1]

    mask = inputs["attention_mask"]
    np.testing.assert_allclose(token_scores(torch.ones_like(mask)), token_scores(mask), rtol=1e-9)


def checkpointing(model, use_reentrant):
    """Switch gradient checkpointing on; gives the list of calls."""
    calls = []

    def counted(*args):
        calls.append(args)
        return checkpoint(*args, use_reentrant=use_reentrant)

    model._set_gradient_checkpointing(True, counted)
    return calls


@pytest.mark.parametrize(
    ("family", "use_reentrant"),
    [(each, False) for each in ("electra", "distilbert", "deberta-v2", "modernbert", "llama")]
    + [(each, reentrant) for each in ("bert", "gpt2", "opt") for reentrant in (False, True)],
)
def test_gradient_checkpointing_changes_nothing(family, use_reentrant):
    model = tiny(family)
    plain = scored(model)
    calls = checkpointing(model, use_reentrant)
    with_checkpoints = scored(model)
    assert len(calls) == 3 * 4  # every layer of every batch
    rates = [getattr(layer.layer, "dropout", None) for layer in unit_layers(model)]
    assert family != "opt" or rates == [0.1] * 3  # its layers' own, off in between
    for unit in UNITS:
        np.testing.assert_allclose(with_checkpoints.mean()[unit], plain.mean()[unit], rtol=1e-9)


@pytest.mark.parametrize("granularity", ["example", "square"])
def test_an_ffn_in_chunks_of_tokens(granularity):
    model, chunked = tiny(), tiny(chunk_size_feed_forward=1)
    plain, in_chunks = (scored(each, granularity=granularity) for each in (model, chunked))
    for unit in UNITS:
        np.testing.assert_allclose(in_chunks.mean()[unit], plain.mean()[unit], rtol=1e-9)
    with pytest.raises(InputError, match="chunk_size_feed_forward"):
        ImportancePass(chunked, granularity="token")


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bf16_is_near(how):
    exact = scored(tiny())
    if how == "weights":
        near = scored(tiny(dtype=torch.bfloat16))
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            near = scored(tiny(dtype=torch.float32))
    for unit in UNITS:
        expected_LN = exact.mean()[unit]
        error_LN = abs(near.mean()[unit] - expected_LN) / expected_LN.mean()
        assert error_LN.max() < 0.1
        assert np.corrcoef(near.mean()[unit].flat, expected_LN.flat)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.bfloat16, 1e-6), (torch.float32, 1e-6), (torch.float64, 1e-14)]
)
def test_products_are_not_rounded_to_narrow_types(dtype, error):
    random = torch.Generator().manual_seed(0)
    value, grad = (torch.randn(2, 7, 20, generator=random).to(dtype) for _ in range(2))
    scoring = ImportancePass(tiny(dtype=dtype))
    scoring._collect(("neurons", 0), value, grad)
    expected = (value.double() * grad.double()).sum(1)
    torch.testing.assert_close(
        scoring._batch["neurons", 0].double(), expected, rtol=error, atol=error
    )


@pytest.fixture
def mixed():
    """A model with some weights frozen, some modules in training mode, and a gradient."""
    model = tiny()
    model.base_model.encoder.layer[1].train()
    model.classifier.bias.requires_grad_(False)
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    checkpointing(model, use_reentrant=True)
    return model


def state(model):
    return (
        [(name, parameter.requires_grad) for name, parameter in model.named_parameters()],
        [(name, module.training) for name, module in model.named_modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        [None if p.grad is None else p.grad.sum().item() for p in model.parameters()],
        [buffer.sum().item() for buffer in model.buffers()],
    )


@pytest.mark.parametrize("fails", [False, True])
def test_all_is_as_it_was_afterwards(mixed, fails):
    before = state(mixed)
    expected = pytest.raises(KeyError) if fails else contextlib.nullcontext()
    with expected, ImportancePass(mixed, UNITS) as scoring:
        inputs, labels_B = padded(EXAMPLES[:4])
        loss_B = cross_entropy(mixed(**inputs).logits, labels_B, reduction="none")
        scoring.add(loss_B, torch.ones(4))
        assert not any(parameter.requires_grad for parameter in mixed.parameters())
        if fails:
            raise KeyError
    assert state(mixed) == before


def test_a_failed_start_leaves_nothing_behind(mixed, monkeypatch):
    before = state(mixed)
    scoring = ImportancePass(mixed)
    monkeypatch.setattr(scoring, "_tap", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), scoring:
        pass
    assert state(mixed) == before


def test_a_failed_backward_leaves_nothing_to_the_next():
    model, expected = tiny(), scored(tiny(), EXAMPLES[:4], micro_batch=4)
    with ImportancePass(model, UNITS) as scoring:
        inputs, labels_B = padded(EXAMPLES[:4])
        loss_B = cross_entropy(model(**inputs).logits, labels_B, reduction="none")
        loss_B.sum().backward()  # past `add`
        with torch.no_grad():
            model(**inputs)
        loss_B = cross_entropy(model(**inputs).logits, labels_B, reduction="none")
        scoring.add(loss_B, torch.ones(4))
    for unit in UNITS:
        np.testing.assert_array_equal(scoring.scores().mean()[unit], expected.mean()[unit])


def test_a_forward_through_other_modules_is_a_defect():
    inputs, labels_B = padded(EXAMPLES[:4])
    with ImportancePass(tiny()) as scoring:
        loss_B = cross_entropy(tiny()(**inputs).logits, labels_B, reduction="none")
        with pytest.raises(RuntimeError, match="own modules"):
            scoring.add(loss_B, torch.ones(4))


def test_no_weight_gradient_and_no_embedding_gradient_is_computed():
    model = tiny()
    with ImportancePass(model) as scoring:
        inputs, labels_B = padded(EXAMPLES[:4])
        outputs = model(**inputs, output_hidden_states=True)
        assert not outputs.hidden_states[0].requires_grad
        assert outputs.hidden_states[1].requires_grad
        scoring.add(cross_entropy(outputs.logits, labels_B, reduction="none"), torch.ones(4))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_reduction_is_one_flat_tensor():
    model, seen = tiny(), []
    one = scored(model)
    with ImportancePass(model, UNITS) as scoring:
        inputs, labels_B = padded(EXAMPLES)
        loss_B = cross_entropy(model(**inputs).logits, labels_B, reduction="none")
        scoring.add(loss_B, torch.ones(16))

    def double(flat):  # two ranks with the same examples
        seen.append(flat)
        flat *= 2

    scoring.reduce(double)
    assert [flat.shape for flat in seen] == [(2 * 3 * (4 + 20 + 1) + 1,)]
    assert seen[0].dtype == torch.float64
    assert scoring.scores().count == 32
    np.testing.assert_allclose(scoring.scores().mean()["heads"], one.mean()["heads"], rtol=1e-9)


def test_a_pruned_model_is_refused():
    model = remove_units(tiny(), {"heads": np.array([[True, True, True, False]] * 3)})
    with pytest.raises(InputError, match="already"):
        ImportancePass(model)
