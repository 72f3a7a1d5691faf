"""Sizes of a dense model, and what its units weigh and cost: pure arithmetic.

No torch here: sizes come from a `config.json`, so that a plan needs no model.
Letters in names: B example, T token, H hidden, L layer, N unit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bigtickets.study.spec import Unit

Masks = Mapping[Unit, NDArray[np.bool_]]
"""Which units stay: boolean L x N per unit type (blocks: L x 1)."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of one dense model; `heads` and `neurons` are per layer, `head_dim` in channels."""

    layers: int
    """Layers with weights of their own; a shared one is counted once."""
    hidden: int
    heads: int
    """Attention units: heads or, where heads share keys and values, key-value groups."""
    neurons: int
    vocab: int
    """0: takes no tokens."""
    positions: int
    types: int
    embedding: int
    head_dim: int
    queries: int = 1
    """Query heads of one attention unit: more than 1 in a key-value group."""
    repeats: int = 1
    """How often every layer is run: more than 1 where depths share layers."""
    relative: int = 0
    """Relative positions that a head multiplies every token by, over both directions (DeBERTa)."""
    head_weights: int = 0
    """Weights and biases of one attention unit."""
    head_matrix: int = 0
    """Those of them that multiply every token."""
    neuron_weights: int = 0
    neuron_matrix: int = 0
    block_bias: int = 0
    """Biases of the FFN that belong to no neuron."""
    last_head_weights: int = 0
    """Parameters of one layer that belong to no head and go with its last one."""
    other_weights: int = 0
    """Parameters that belong to no unit and not to the task head."""
    pooling_weights: int = 0
    """Parameters of the task head before its last layer."""
    label_weights: int = 0
    """Parameters of the task head for each output."""


def units_per_layer(shapes: Shapes, unit: Unit) -> int:
    """How many units of a type one dense layer has."""
    return {"heads": shapes.heads, "neurons": shapes.neurons, "blocks": 1}[unit]


def unit_channels(shapes: Shapes, unit: Unit) -> int:
    """Channels that one gate multiplies: a head's (all of a group's), a neuron's, an FFN's."""
    heads = shapes.queries * shapes.head_dim
    return {"heads": heads, "neurons": 1, "blocks": shapes.hidden}[unit]


def weights_per_unit(shapes: Shapes) -> dict[Unit, int]:
    """Weights and biases that go with one unit.

    A head: its rows of query, key and value with their biases, its columns of the output
    projection. A key-value group: the same of all its query heads and their one key and value.
    A neuron: its rows (two where the FFN is gated) with biases and one column. A block: both
    projections with all biases.
    """
    return {
        "heads": shapes.head_weights,
        "neurons": shapes.neuron_weights,
        "blocks": shapes.neurons * shapes.neuron_weights + shapes.block_bias,
    }


def prunable_weights(shapes: Shapes, units: Iterable[Unit]) -> int:
    """Weights of all units of these types in the dense encoder; shared layers count once."""
    each = weights_per_unit(shapes)
    return sum(shapes.layers * units_per_layer(shapes, unit) * each[unit] for unit in units)


def model_parameters(shapes: Shapes, labels: int) -> int:
    """Parameters of the dense sequence classifier: embeddings, layers, task head of `labels`."""
    head = shapes.pooling_weights + labels * shapes.label_weights
    return prunable_weights(shapes, ("heads", "blocks")) + shapes.other_weights + head


def forward_flops(shapes: Shapes, length: int, kept: Masks | None = None) -> int:
    """Floating-point operations of the layers' matrix products for one example.

    Two per multiply-add; query, key, value and output projections, both attention products and
    those with relative positions, FFN projections. Attention counts every pair of tokens, also
    where a causal or local mask hides some. `length`: tokens. `kept`: units that stay, all of a
    type if not named.
    """
    count = {
        unit: shapes.layers * units_per_layer(shapes, unit) for unit in ("heads", "neurons")
    } | {unit: int(mask.sum()) for unit, mask in (kept or {}).items()}
    if "blocks" in count:
        count["neurons"] = count["blocks"] * shapes.neurons
    pairs = (2 * length + shapes.relative) * unit_channels(shapes, "heads")
    per_head, per_neuron = 2 * (shapes.head_matrix + pairs), 2 * shapes.neuron_matrix
    per_token = count["heads"] * per_head + count["neurons"] * per_neuron
    return length * per_token * shapes.repeats
