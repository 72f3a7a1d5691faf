"""The family and the sizes of a model, from its config alone: no torch here."""

from dataclasses import replace

from bigtickets.errors import InputError
from bigtickets.study.spec import Unit
from bigtickets.tickets.layouts import Config, Family, Projection, holds
from bigtickets.tickets.shapes import (
    Masks,
    Shapes,
    forward_flops,
    model_parameters,
    prunable_weights,
    unit_channels,
    units_per_layer,
    weights_per_unit,
)
from bigtickets.tickets.table import FAMILIES

__all__ = [
    "Masks",
    "Shapes",
    "family_of",
    "forward_flops",
    "has_projection",
    "model_parameters",
    "projection_rows",
    "prunable_weights",
    "shapes_of",
    "unit_channels",
    "units_per_layer",
    "weights_per_unit",
]

_KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "neurons": "intermediate_size",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "embedding": "",
    "head_dim": "",
    "key_values": "",
    "inner": "",
    "depth": "",
}
# What a layer or a weight would be that the table knows nothing of.
_REFUSED = {
    "add_cross_attention": "has cross-attention, whose heads are no units",
    "quantization_config": "is quantised; prune it before it is quantised",
    "num_experts": "has a mixture of experts, whose neurons are no units",
    "num_local_experts": "has a mixture of experts, whose neurons are no units",
    "n_routed_experts": "has a mixture of experts, whose neurons are no units",
}


def family_of(config: Config) -> Family:
    """The table entry for a model's config; InputError if there is none."""
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise InputError(
            f"model_type {kind!r} cannot be pruned; known: {', '.join(FAMILIES)}. "
            "docs/adding_a_family.md says how to add one"
        )
    for key, why in _REFUSED.items():
        if config.get(key):
            raise InputError(f"this {kind} model cannot be pruned ({key} in its config): it {why}")
    return FAMILIES[kind]


def shapes_of(config: Config) -> Shapes:
    """Sizes from the content of a `config.json`; InputError names a key that is missing or odd."""
    family = family_of(config)
    keys = {**_KEYS, **family.keys}
    sizes = {
        name: _size(config, key, name in family.optional, least=name != "types")
        for name, key in keys.items()
    }
    hidden, heads = sizes["hidden"], sizes["heads"]
    groups, inner = sizes["key_values"] or heads, sizes["inner"] or 1
    layers, depth = sizes["layers"] * inner, sizes["depth"] or sizes["layers"]
    if not sizes["head_dim"]:
        _check_multiple(hidden, keys["hidden"], heads, keys["heads"])
    _check_multiple(heads, keys["heads"], groups, keys["key_values"])
    _check_multiple(depth, keys["depth"], sizes["layers"], keys["layers"])
    shapes = Shapes(
        layers=layers,
        hidden=hidden,
        heads=groups,
        neurons=sizes["neurons"] or 4 * hidden,
        vocab=sizes["vocab"],
        positions=sizes["positions"],
        types=sizes["types"],
        embedding=sizes["embedding"] or hidden,
        head_dim=sizes["head_dim"] or hidden // heads,
        queries=heads // groups,
        repeats=depth // sizes["layers"],
        relative=family.relative(config) if family.relative else 0,
    )
    return _weighed(shapes, family, config)


def projection_rows(shapes: Shapes, projection: Projection, unit: Unit) -> int:
    """Rows of one unit in all parts of a projection that is in `head_rows` or `neuron_rows`."""
    if unit != "heads":
        return projection.parts
    queries = 1 if projection.per_group else shapes.queries
    return projection.parts * queries * shapes.head_dim


def has_projection(projection: Projection, config: Config) -> bool:
    """Whether models of a config have it."""
    return projection.of_positions is None or projection.of_positions(config)


def _size(config: Config, key: str, optional: bool, least: int) -> int:
    """A size; 0 where the family doesn't have it, or where it follows from others."""
    value = config.get(key)
    if not key or (value is None and optional):
        return 0
    if type(value) is not int or value < least:
        raise InputError(f"config: {key} must be a whole number from {least} on, got {value!r}")
    return value


def _check_multiple(size: int, key: str, of: int, of_key: str) -> None:
    if size % of:
        raise InputError(f"config: {key} {size} is no multiple of {of_key} {of}")


def _weighed(shapes: Shapes, family: Family, config: Config) -> Shapes:
    """The same sizes with what the units and the rest weigh."""
    head_weights, head_matrix = _unit_weights(shapes, family, config, "heads")
    neuron_weights, neuron_matrix = _unit_weights(shapes, family, config, "neurons")
    head_bias = holds(family.head_columns.bias, config) * shapes.hidden
    norms = family.head_norms * shapes.head_dim
    pooling_weights, label_weights = family.task_head(shapes, config)
    return replace(
        shapes,
        head_weights=head_weights,
        head_matrix=head_matrix,
        neuron_weights=neuron_weights,
        neuron_matrix=neuron_matrix,
        block_bias=holds(family.neuron_columns.bias, config) * shapes.hidden,
        last_head_weights=norms,
        other_weights=family.other_weights(shapes, config) + (head_bias + norms) * shapes.layers,
        pooling_weights=pooling_weights,
        label_weights=label_weights,
    )


def _unit_weights(shapes: Shapes, family: Family, config: Config, unit: Unit) -> tuple[int, int]:
    """(weights and biases of one unit, those of them that multiply every token)."""
    weights = matrix = unit_channels(shapes, unit) * shapes.hidden
    for projection in family.rows(unit):
        if has_projection(projection, config):
            rows = projection_rows(shapes, projection, unit)
            weights += rows * (shapes.hidden + holds(projection.bias, config))
            matrix += 0 if projection.of_positions else rows * shapes.hidden
    return weights, matrix
