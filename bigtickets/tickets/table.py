"""The model families that can be pruned, one entry each; `layouts.Family` explains the fields."""

from collections.abc import Mapping
from dataclasses import replace

from bigtickets.tickets import remainders
from bigtickets.tickets.layouts import Config, Family, Flag, Projection

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
        return not config.get("share_att_key") and kind in _directions(config)

    return Projection(f"attention.self.{name}", of_positions=there)


def _directions(config: Config) -> list[str]:
    """Content to position, position to content: a list in a config, or one text with bars."""
    if not config.get("relative_attention"):
        return []
    return [kind for kind in ("c2p", "p2c") if kind in (config.get("pos_att_type") or ())]


def _relative(config: Config) -> int:
    return len(_directions(config)) * 2 * remainders.deberta_span(config)


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
        relative=_relative,
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
