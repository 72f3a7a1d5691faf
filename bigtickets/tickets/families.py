"""The model families that can be pruned, one table entry each, and the sizes of a config."""

from collections.abc import Mapping
from dataclasses import replace

from bigtickets.errors import InputError
from bigtickets.study.spec import Unit
from bigtickets.tickets import remainders
from bigtickets.tickets.layouts import Config, Family, Flag, Projection, holds
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

__all__ = [
    "FAMILIES",
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

_BERT = Family(
    layers=("encoder.layer",),
    attention="attention.self",
    head_rows=(
        Projection("attention.self.query"),
        Projection("attention.self.key"),
        Projection("attention.self.value"),
    ),
    head_columns=Projection("attention.output.dense"),
    neuron_rows=(Projection("intermediate.dense"),),
    neuron_columns=Projection("output.dense"),
    head_counts=("num_attention_heads",),
    head_widths=("all_head_size",),
    other_weights=remainders.bert,
    task_head=remainders.pooled,
)


def _llama(
    qkv_bias: bool | Flag, out_bias: bool | Flag, mlp_bias: bool | Flag, optional: tuple[str, ...]
) -> Family:
    return Family(
        layers=("layers",),
        attention="self_attn",
        head_rows=(
            Projection("self_attn.q_proj", qkv_bias),
            Projection("self_attn.k_proj", qkv_bias, per_group=True),
            Projection("self_attn.v_proj", qkv_bias, per_group=True),
        ),
        head_columns=Projection("self_attn.o_proj", out_bias),
        neuron_rows=(Projection("mlp.gate_proj", mlp_bias), Projection("mlp.up_proj", mlp_bias)),
        neuron_columns=Projection("mlp.down_proj", mlp_bias),
        keys={"key_values": "num_key_value_heads", "head_dim": "head_dim", "types": ""},
        optional=optional,
        other_weights=remainders.llama,
        task_head=remainders.scored,
    )


def _positions(kind: str) -> Projection:
    """DeBERTa's own projection of the relative positions for one direction."""
    name = {"c2p": "pos_key_proj", "p2c": "pos_query_proj"}[kind]

    def there(config: Config) -> bool:
        own = config.get("relative_attention") and not config.get("share_att_key")
        return bool(own) and kind in (config.get("pos_att_type") or ())

    return Projection(f"attention.self.{name}", of_positions=there)


def _deberta_relative(config: Config) -> int:
    directions = {"c2p", "p2c"} & set(config.get("pos_att_type") or ())
    there = config.get("relative_attention", False)
    return len(directions) * 2 * remainders.deberta_span(config) if there else 0


_ATTENTION_BIAS = Flag("attention_bias", False)
_OPT_BIAS = Flag("enable_bias", True)
_VIT_BIAS = Flag("qkv_bias", True)
_MLP_BIAS = Flag("mlp_bias", False)

FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": replace(_BERT, keys={"embedding": "embedding_size"}),
    "distilbert": Family(
        layers=("transformer.layer",),
        attention="attention",
        head_rows=(
            Projection("attention.q_lin"),
            Projection("attention.k_lin"),
            Projection("attention.v_lin"),
        ),
        head_columns=Projection("attention.out_lin"),
        neuron_rows=(Projection("ffn.lin1"),),
        neuron_columns=Projection("ffn.lin2"),
        head_counts=("n_heads",),
        keys={
            "layers": "n_layers",
            "hidden": "dim",
            "heads": "n_heads",
            "neurons": "hidden_dim",
            "types": "",
        },
        other_weights=remainders.bert,
        task_head=remainders.pooled,
    ),
    # All depths of a group run the same layers: their units are the group's, scored over all
    # depths together and cut once.
    "albert": Family(
        layers=("encoder.albert_layer_groups", "albert_layers"),
        attention="attention",
        head_rows=(
            Projection("attention.query"),
            Projection("attention.key"),
            Projection("attention.value"),
        ),
        head_columns=Projection("attention.dense"),
        neuron_rows=(Projection("ffn"),),
        neuron_columns=Projection("ffn_output"),
        head_counts=("num_attention_heads",),
        head_widths=("all_head_size",),
        attention_tail=("output_dropout",),
        attention_norm="LayerNorm",
        keys={
            "layers": "num_hidden_groups",
            "inner": "inner_group_num",
            "depth": "num_hidden_layers",
            "embedding": "embedding_size",
        },
        optional=("inner",),
        other_weights=remainders.albert,
        task_head=remainders.pooled,
    ),
    "mpnet": Family(
        layers=("encoder.layer",),
        attention="attention.attn",
        head_rows=(
            Projection("attention.attn.q"),
            Projection("attention.attn.k"),
            Projection("attention.attn.v"),
        ),
        head_columns=Projection("attention.attn.o"),
        neuron_rows=(Projection("intermediate.dense"),),
        neuron_columns=Projection("output.dense"),
        head_counts=("num_attention_heads",),
        head_widths=("all_head_size",),
        head_arguments=("position_bias",),
        keys={"types": ""},
        other_weights=remainders.mpnet,
        task_head=remainders.pooled,
    ),
    "deberta-v2": replace(
        _BERT,
        head_rows=(
            Projection("attention.self.query_proj"),
            Projection("attention.self.key_proj"),
            Projection("attention.self.value_proj"),
            _positions("c2p"),
            _positions("p2c"),
        ),
        keys={"embedding": "embedding_size"},
        optional=("embedding",),
        relative=_deberta_relative,
        other_weights=remainders.deberta,
    ),
    "modernbert": Family(
        layers=("layers",),
        attention="attn",
        head_rows=(Projection("attn.Wqkv", _ATTENTION_BIAS, parts=3),),
        head_columns=Projection("attn.Wo", _ATTENTION_BIAS),
        neuron_rows=(Projection("mlp.Wi", _MLP_BIAS, parts=2),),
        neuron_columns=Projection("mlp.Wo", _MLP_BIAS),
        attention_tail=("out_drop",),
        keys={"types": ""},
        other_weights=remainders.modernbert,
        task_head=remainders.normed,
    ),
    "gpt2": Family(
        layers=("h",),
        attention="attn",
        head_rows=(Projection("attn.c_attn", parts=3),),
        head_columns=Projection("attn.c_proj"),
        neuron_rows=(Projection("mlp.c_fc"),),
        neuron_columns=Projection("mlp.c_proj"),
        head_counts=("num_heads",),
        head_widths=("split_size",),
        attention_tail=("resid_dropout",),
        keys={
            "layers": "n_layer",
            "hidden": "n_embd",
            "heads": "n_head",
            "neurons": "n_inner",
            "positions": "n_positions",
            "types": "",
        },
        optional=("neurons",),
        other_weights=remainders.gpt2,
        task_head=remainders.scored,
    ),
    "opt": Family(
        layers=("decoder.layers",),
        attention="self_attn",
        head_rows=(
            Projection("self_attn.q_proj", _OPT_BIAS),
            Projection("self_attn.k_proj", _OPT_BIAS),
            Projection("self_attn.v_proj", _OPT_BIAS),
        ),
        head_columns=Projection("self_attn.out_proj", _OPT_BIAS),
        neuron_rows=(Projection("fc1", _OPT_BIAS),),
        neuron_columns=Projection("fc2", _OPT_BIAS),
        head_counts=("num_heads",),
        keys={"neurons": "ffn_dim", "embedding": "word_embed_proj_dim", "types": ""},
        optional=("embedding",),
        other_weights=remainders.opt,
        task_head=remainders.scored,
    ),
    "llama": _llama(_ATTENTION_BIAS, _ATTENTION_BIAS, _MLP_BIAS, ("key_values", "head_dim")),
    "mistral": _llama(False, False, False, ("head_dim",)),
    "qwen2": _llama(True, False, False, ("head_dim",)),
    "qwen3": replace(_llama(_ATTENTION_BIAS, _ATTENTION_BIAS, False, ()), head_norms=2),
    "vit": Family(
        layers=("layers",),
        attention="attention",
        head_rows=(
            Projection("attention.q_proj", _VIT_BIAS),
            Projection("attention.k_proj", _VIT_BIAS),
            Projection("attention.v_proj", _VIT_BIAS),
        ),
        head_columns=Projection("attention.o_proj"),
        neuron_rows=(Projection("mlp.fc1"),),
        neuron_columns=Projection("mlp.fc2"),
        head_counts=("num_attention_heads",),
        keys={"head_dim": "head_dim", "vocab": "", "positions": "", "types": ""},
        optional=("head_dim",),
        other_weights=remainders.vit,
        task_head=remainders.plain,
    ),
}
"""By `model_type` of the config. MiniLM, E5, GTE and BGE encoders are of type `bert`."""

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
