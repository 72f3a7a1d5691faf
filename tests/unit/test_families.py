import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, batch_for, random_kept, tiny
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
from bigtickets.tickets.units import layer_names, model_shapes

BERT_BASE = {
    "model_type": "bert",
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family):
    model = tiny(family)
    assert model_parameters(model_shapes(model), labels=3) == model.num_parameters()


def test_electra_without_embedding_projection():
    model = tiny("electra", embedding_size=24)
    assert model_parameters(model_shapes(model), labels=3) == model.num_parameters()


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


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_what_torch_counts(family):
    """Per example: what one more example adds, since a table of positions is multiplied once."""
    model = tiny(family, attention="eager")
    shapes, length = model_shapes(model), 17 if family == "vit" else 11
    assert _counted_flops(model, length) == forward_flops(shapes, length)
    for third in ({"neurons": (3, 20)}, {"blocks": (3, 1)}):
        kept = random_kept(heads=(3, 4), **third)
        kept["heads"][0] = False
        removed = remove_units(copy.deepcopy(model), kept)
        assert _counted_flops(removed, length) == forward_flops(shapes, length, kept)


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
    ("key", "value"), [("hidden_size", None), ("hidden_size", 770), ("num_hidden_layers", 0)]
)
def test_odd_config_names_the_key(key, value):
    with pytest.raises(InputError, match=key):
        shapes_of({**BERT_BASE, key: value})


def test_head_size():
    assert shapes_of(BERT_BASE).head_dim == 64


def test_no_torch_is_needed_to_count():
    code = (
        "import sys, bigtickets.tickets.families, bigtickets.tickets.selection;"
        "import bigtickets.tickets.ticket; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
