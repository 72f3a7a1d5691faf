import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_models import BERT_BASE, CONFIGS, FAMILIES, batch_for, random_kept, tiny
from torch.utils.flop_counter import FlopCounterMode

from bigtickets.errors import InputError
from bigtickets.tickets.families import (
    family_of,
    forward_flops,
    model_parameters,
    prunable_weights,
    shapes_of,
    units_per_layer,
    weights_per_unit,
)
from bigtickets.tickets.surgery import remove_units
from bigtickets.tickets.units import layer_names, model_shapes, unit_layers


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family):
    model = tiny(family)
    assert model_parameters(model_shapes(model), labels=3) == model.num_parameters()


VARIANTS = [
    ("electra", {"embedding_size": 24}),
    ("albert", {"num_hidden_layers": 3, "num_hidden_groups": 1, "inner_group_num": 2}),
    ("albert", {"embedding_size": 24}),
    ("deberta-v2", {"share_att_key": True, "type_vocab_size": 2, "conv_kernel_size": 3}),
    ("deberta-v2", {"pos_att_type": "p2c", "position_buckets": -1, "embedding_size": 16}),
    ("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
    ("modernbert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True}),
    ("modernbert", {"classifier_bias": True}),
    ("gpt2", {"n_inner": None}),
    ("opt", {"enable_bias": False, "word_embed_proj_dim": 24, "do_layer_norm_before": False}),
    ("opt", {"layer_norm_elementwise_affine": False}),
    ("llama", {"attention_bias": True, "mlp_bias": False}),
    ("mistral", {"num_key_value_heads": 2}),
    ("qwen3", {"attention_bias": True, "num_key_value_heads": 1}),
    ("vit", {"qkv_bias": False, "image_size": (8, 4), "patch_size": (4, 2)}),
]


@pytest.mark.parametrize(("family", "changes"), VARIANTS)
def test_parameters_and_unit_weights_of_variants(family, changes):
    model = tiny(family, **changes)
    shapes = model_shapes(model)
    assert model_parameters(shapes, labels=3) == model.num_parameters()
    for unit, weights in weights_per_unit(shapes).items():
        kept = {unit: np.ones((shapes.layers, units_per_layer(shapes, unit)), bool)}
        kept[unit][0, 0] = False
        removed = remove_units(copy.deepcopy(model), kept)
        last = shapes.last_head_weights * (unit == "heads" and shapes.heads == 1)
        assert model.num_parameters() - removed.num_parameters() == weights + last


# Of classifiers of two classes, as published or as transformers counts them.
PUBLISHED = {
    "albert": ("albert", 222_595_584 + 2 * 4097),  # xxlarge: 12 depths of one layer
    "gpt2": ("gpt2", 124_439_808 + 2 * 768),
    "llama-7b": ("llama", 6_738_415_616 - 32000 * 4096 + 2 * 4096),
    "mistral-7b": ("mistral", 7_241_732_096 - 32000 * 4096 + 2 * 4096),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    family, parameters = PUBLISHED[name]
    config = CONFIGS[family].__class__(pad_token_id=0)
    assert model_parameters(shapes_of(config.to_dict()), labels=2) == parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_model_of_each_family(family):
    """A size as people use it, on the meta device, from the file that transformers writes."""
    config = type(CONFIGS[family])(num_labels=2, pad_token_id=0)
    with torch.device("meta"):
        model = type(tiny(family))(config)
    shapes = shapes_of(json.loads(config.to_json_string()))
    assert model_parameters(shapes, labels=2) == model.num_parameters()
    prunable = {each for layer in unit_layers(model) for each in layer.layer.parameters()}
    norms = sum(p.numel() for p in prunable if p.dim() == 1)
    units = prunable_weights(shapes, ("heads", "neurons"))
    assert units <= sum(p.numel() for p in prunable) <= units + norms


def test_deberta_directions_as_a_text():
    config = CONFIGS["deberta-v2"].to_dict()
    assert shapes_of({**config, "pos_att_type": "p2c|c2p"}) == shapes_of(config)
    assert shapes_of({**config, "pos_att_type": "p2c"}) != shapes_of(config)


def test_albert_has_one_layer_for_all_depths():
    base = {**BERT_BASE, "model_type": "albert", "num_hidden_groups": 1, "embedding_size": 128}
    shapes, bert = shapes_of(base), shapes_of(BERT_BASE)
    assert (shapes.layers, shapes.repeats) == (1, 12)
    assert prunable_weights(shapes, ("heads",)) * 12 == prunable_weights(bert, ("heads",))
    assert forward_flops(shapes, 128) == forward_flops(bert, 128)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unit", ["heads", "neurons", "blocks"])
def test_weights_of_a_unit_are_what_its_removal_frees(family, unit):
    model = tiny(family)
    shapes = model_shapes(model)
    kept = {unit: np.ones((3, units_per_layer(shapes, unit)), bool)}
    kept[unit][1, 0] = False
    before = model.num_parameters()
    remove_units(model, kept)
    assert before - model.num_parameters() == weights_per_unit(shapes)[unit]


def test_bert_base_in_numbers():
    shapes = shapes_of(BERT_BASE)
    assert model_parameters(shapes, labels=2) == 109_483_778
    # A head: 4 x 64 x 768 weights and 3 x 64 biases.
    assert weights_per_unit(shapes) == {"heads": 196_800, "neurons": 1537, "blocks": 4_722_432}
    assert prunable_weights(shapes, ("heads", "neurons")) == 12 * (12 * 196_800 + 3072 * 1537)
    assert forward_flops(shapes, 128) == 12 * 128 * (8 * 768 * 768 + 4 * 128 * 768 + 4 * 768 * 3072)


NEURONS, BLOCKS = {"neurons": (3, 20)}, {"blocks": (3, 1)}


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_what_torch_counts(family):
    """Per example: what one more example adds, since a table of positions is multiplied once."""
    model = tiny(family, attention="eager")
    shapes, length = model_shapes(model), 17 if family == "vit" else 11
    assert _counted_flops(model, length) == forward_flops(shapes, length)
    kept = random_kept(heads=(3, 4), **(BLOCKS if family == "bert" else NEURONS))
    kept["heads"][0] = False
    remove_units(model, kept)
    assert _counted_flops(model, length) == forward_flops(shapes, length, kept)


def _counted_flops(model, length):
    """Of the layers, for one example."""
    counts = []
    for size in (1, 2):
        inputs, _ = batch_for(model, [(torch.arange(4, 4 + length), torch.tensor(0))] * size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(**inputs)
        by_module = counter.get_flop_counts()
        names = [f"{type(model).__name__}.{name}" for name in layer_names(model)]
        counts.append(sum(sum(by_module.get(name, {}).values()) for name in names))
    return counts[1] - counts[0]


def test_unknown_family_names_the_known_ones():
    with pytest.raises(InputError, match=r"'t5'.*bert.*adding_a_family"):
        family_of({"model_type": "t5"})


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("bert", "hidden_size", None),
        ("bert", "hidden_size", 770),
        ("bert", "num_hidden_layers", 0),
        ("albert", "num_hidden_groups", 4),
        ("electra", "embedding_size", None),
        ("llama", "num_key_value_heads", 3),
        ("gpt2", "add_cross_attention", True),
        ("qwen2", "num_experts", 8),
        ("mistral", "num_local_experts", 8),
        ("llama", "quantization_config", {"bits": 4}),
    ],
)
def test_odd_config_names_the_key(family, key, value):
    config = CONFIGS[family].to_dict() if family != "bert" else BERT_BASE
    shapes_of(config)
    with pytest.raises(InputError, match=key):
        shapes_of({**config, key: value})


def test_another_layout_of_a_known_type_is_refused():
    model = tiny("llama")
    layer = model.base_model.layers[1]
    layer.mlp.down_proj = torch.nn.Linear(40, 24)
    with pytest.raises(InputError, match=r"layers\.1\.mlp.down_proj has 40 channels.*20"):
        unit_layers(model)
    layer.mlp.down_proj, layer.mlp.up_proj = torch.nn.Linear(20, 24), torch.nn.Linear(24, 40)
    kept = {"neurons": np.eye(3, 20, dtype=bool)}
    with pytest.raises(InputError, match=r"layers\.1\.mlp.up_proj has 40 channels"):
        remove_units(model, kept)
    layer.mlp.up_proj = torch.nn.Bilinear(24, 24, 20)
    with pytest.raises(InputError, match=r"layers\.1\.mlp.up_proj is a Bilinear"):
        remove_units(model, kept)


def test_head_size():
    assert shapes_of(BERT_BASE).head_dim == 64


def test_no_torch_is_needed_to_count():
    code = (
        "import sys, bigtickets.tickets.families, bigtickets.tickets.selection;"
        "import bigtickets.tickets.ticket; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
