"""The model families that can be pruned, one table entry each, and what their units weigh.

No torch here: sizes come from a `config.json`, so that a plan needs no model.
Letters in names: B example, T token, H hidden, L layer, N unit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigtickets.errors import InputError
from bigtickets.study.spec import Unit

Masks = Mapping[Unit, NDArray[np.bool_]]
"""Which units stay: boolean L x N per unit type (blocks: L x 1)."""


@dataclass(frozen=True)
class Family:
    """Where the units of one model family are. Module paths are relative to one layer."""

    layers: str
    """The list of layers, relative to the base model."""
    attention: str
    """The module that computes attention; its forward returns (output, attention weights)."""
    head_rows: tuple[str, ...]
    """Linears whose rows belong to heads: query, key, value."""
    head_columns: str
    """The attention output projection: its columns belong to heads."""
    neuron_rows: tuple[str, ...]
    """Linears whose rows are neurons: the up projection."""
    neuron_columns: str
    """The down projection: its columns are neurons."""
    head_counts: tuple[str, ...] = ()
    """Attributes of `attention` that hold the number of heads."""
    head_widths: tuple[str, ...] = ()
    """Attributes of `attention` that hold heads x head size."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Config keys of the sizes in `Shapes`, where they are not `_KEYS`."""


_KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "neurons": "intermediate_size",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "embedding": "hidden_size",
}

_BERT = Family(
    layers="encoder.layer",
    attention="attention.self",
    head_rows=("attention.self.query", "attention.self.key", "attention.self.value"),
    head_columns="attention.output.dense",
    neuron_rows=("intermediate.dense",),
    neuron_columns="output.dense",
    head_counts=("num_attention_heads",),
    head_widths=("all_head_size",),
)

FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": replace(_BERT, keys={"embedding": "embedding_size"}),
    "distilbert": Family(
        layers="transformer.layer",
        attention="attention",
        head_rows=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        head_columns="attention.out_lin",
        neuron_rows=("ffn.lin1",),
        neuron_columns="ffn.lin2",
        head_counts=("n_heads",),
        keys={
            "layers": "n_layers",
            "hidden": "dim",
            "heads": "n_heads",
            "neurons": "hidden_dim",
            "embedding": "dim",
            "types": "",  # has no segments
        },
    ),
}
"""By `model_type` of the config. MiniLM, E5, GTE and BGE encoders are of type `bert`."""


def family_of(config: Mapping[str, Any]) -> Family:
    """The table entry for a model's config; InputError if there is none."""
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise InputError(
            f"model_type {kind!r} cannot be pruned; known: {', '.join(FAMILIES)}. "
            "docs/adding_a_family.md says how to add one"
        )
    return FAMILIES[kind]


@dataclass(frozen=True)
class Shapes:
    """Sizes of one dense model; `heads` and `neurons` are per layer, `head_dim` in channels."""

    layers: int
    hidden: int
    heads: int
    neurons: int
    vocab: int
    positions: int
    types: int
    embedding: int

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.hidden // self.heads


def shapes_of(config: Mapping[str, Any]) -> Shapes:
    """Sizes from the content of a `config.json`; InputError names a key that is missing or odd."""
    keys = {**_KEYS, **family_of(config).keys}
    sizes = {name: _size(config, key) for name, key in keys.items() if key}
    shapes = Shapes(**{"types": 0, **sizes})
    if shapes.hidden % shapes.heads:
        raise InputError(
            f"config: {keys['hidden']} {shapes.hidden} is no multiple of "
            f"{keys['heads']} {shapes.heads}"
        )
    return shapes


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise InputError(f"config: {key} must be a whole number from 1 on, got {value!r}")
    return value


def units_per_layer(shapes: Shapes, unit: Unit) -> int:
    """How many units of a type one dense layer has."""
    return {"heads": shapes.heads, "neurons": shapes.neurons, "blocks": 1}[unit]


def unit_channels(shapes: Shapes, unit: Unit) -> int:
    """Channels that one gate multiplies: a head's, one neuron's, or the FFN block's output."""
    return {"heads": shapes.head_dim, "neurons": 1, "blocks": shapes.hidden}[unit]


def weights_per_unit(shapes: Shapes) -> dict[Unit, int]:
    """Weights and biases that go with one unit.

    A head: D rows of query, key and value with their biases, D columns of the output projection.
    A neuron: one row with bias and one column. A block: both projections with both biases.
    """
    row = shapes.hidden + 1
    neuron = row + shapes.hidden
    return {
        "heads": shapes.head_dim * (3 * row + shapes.hidden),
        "neurons": neuron,
        "blocks": shapes.neurons * neuron + shapes.hidden,
    }


def prunable_weights(shapes: Shapes, units: Iterable[Unit]) -> int:
    """Weights of all units of these types in the dense encoder."""
    each = weights_per_unit(shapes)
    return sum(shapes.layers * units_per_layer(shapes, unit) * each[unit] for unit in units)


def model_parameters(shapes: Shapes, labels: int) -> int:
    """Parameters of the dense sequence classifier: embeddings, layers, task head of `labels`."""
    hidden, size = shapes.hidden, shapes.embedding
    embeddings = (shapes.vocab + shapes.positions + shapes.types + 2) * size
    if size != hidden:
        embeddings += (size + 1) * hidden
    norms_and_output_bias = 5 * hidden
    layers = prunable_weights(shapes, ("heads", "blocks")) + shapes.layers * norms_and_output_bias
    head = (hidden + 1) * hidden + (hidden + 1) * labels
    return embeddings + layers + head


def forward_flops(shapes: Shapes, length: int, kept: Masks | None = None) -> int:
    """Floating-point operations of the layers' matrix products for one example.

    Two per multiply-add; query, key, value and output projections, both attention products,
    both FFN projections. `length`: tokens. `kept`: units that stay, all of a type if not named.
    """
    count = {
        unit: shapes.layers * units_per_layer(shapes, unit) for unit in ("heads", "neurons")
    } | {unit: int(mask.sum()) for unit, mask in (kept or {}).items()}
    if "blocks" in count:
        count["neurons"] = count["blocks"] * shapes.neurons
    per_head = 8 * shapes.hidden * shapes.head_dim + 4 * length * shapes.head_dim
    per_neuron = 4 * shapes.hidden
    return length * (count["heads"] * per_head + count["neurons"] * per_neuron)
