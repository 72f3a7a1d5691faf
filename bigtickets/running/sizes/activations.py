"""What autograd keeps of a forward pass until the backward has used it, in bytes.

Counted for padded batches of transformer layers as transformers computes them; float32, or bf16
by autocast on a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bigtickets.study.spec import ExecutionSpec, TrainingSpec
from bigtickets.tickets.families import (
    Shapes,
    prunable_weights,
    shapes_of,
    unit_channels,
    weights_per_unit,
)

FLOAT, HALF = 4, 2
"""Bytes of a float32 and of a bf16."""
CPU_TOKENS = 2048
"""Tokens of a batch of the importance pass: `training.hardware.tokens_per_pass`, without torch."""

# Vectors of the FFN's width that an activation function keeps; the others keep in- and output.
ACTIVATION_VECTORS = {"relu": 1, "gelu_new": 5, "gelu_fast": 5}
# Families without a fused kernel: transformers computes their attention step by step.
EAGER_ONLY = ("mpnet", "deberta-v2")
ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation_function", "activation")


@dataclass(frozen=True)
class Layer:
    """One layer's sizes as far as they decide what is kept; widths in channels."""

    hidden: int
    heads: int
    width: int
    """Of all heads together."""
    neurons: int
    ffn_vectors: int
    """Vectors of `neurons` that the FFN keeps."""
    gated: bool
    """Whether the FFN has two projections up."""
    norm_vectors: int
    """Vectors of `hidden` that both norms keep, in float32 always."""
    drops: bool
    """Whether the family has dropout on hidden states."""
    eager: bool
    """Whether attention is computed step by step whatever is asked for."""
    relative: int
    """Relative positions, over both directions, that every token has scores for (DeBERTa)."""


def layer_of(config: Mapping[str, Any]) -> Layer:
    """The sizes of a model's layers."""
    shapes = shapes_of(config)
    # A neuron has a row of each projection up and a column of the one down.
    gated = round(weights_per_unit(shapes)["neurons"] / shapes.hidden) > 2
    activation = next((config[key] for key in ACTIVATION_KEYS if key in config), None)
    vectors = ACTIVATION_VECTORS.get(str(activation), 2) + (2 if gated else 0)
    # Keys and values are repeated for the query heads that share them.
    width = shapes.heads * unit_channels(shapes, "heads")
    heads = width // shapes.head_dim
    # RMSNorm is written out in torch: it keeps what it multiplies by its weight, too.
    rms = "rms_norm_eps" in config
    return Layer(
        hidden=shapes.hidden,
        heads=heads,
        width=width,
        neurons=shapes.neurons,
        ffn_vectors=vectors,
        gated=gated,
        norm_vectors=4 if rms else 2,
        drops=not rms,
        eager=config["model_type"] in EAGER_ONLY,
        relative=shapes.relative,
    )


def micro_batch(training: TrainingSpec, execution: ExecutionSpec, processes: int) -> int:
    """Examples that go through the model at once in each process."""
    share = -(-training.batch_size // processes)
    return share if execution.micro_batch == "auto" else min(execution.micro_batch, share)


def training_bytes(
    config: Mapping[str, Any], training: TrainingSpec, execution: ExecutionSpec, examples: int
) -> int:
    """Of `examples` as long as they may be, with what the backward of one layer works with."""
    shapes, layer = shapes_of(config), layer_of(config)
    bf16 = execution.precision != "fp32"
    each = kept_per_token(layer, training.max_length, execution.attention, training.dropout, bf16)
    kept = shapes.layers * shapes.repeats * each
    if execution.gradient_checkpointing:  # the layers' inputs, and one layer at a time
        kept = shapes.layers * shapes.repeats * FLOAT * layer.hidden + each
    embeddings = FLOAT * (2 * shapes.embedding + shapes.hidden)
    return examples * training.max_length * (kept + working(layer, bf16) + embeddings)


def kept_per_token(layer: Layer, length: int, attention: str, dropout: float, bf16: bool) -> int:
    """Bytes that one layer keeps per token in training.

    The inputs of attention, FFN and both norms and two dropout masks; query, key, value and
    context; what the FFN's activation and gate keep.
    """
    hidden, masks = layer.hidden, 2 * layer.hidden if dropout and layer.drops else 0
    inner = 4 * layer.width + layer.ffn_vectors * layer.neurons
    # Query, key, value and each projection up have one input, but autocast casts it for each.
    inputs = (3 + (2 if layer.gated else 1)) * hidden if bf16 else 2 * hidden
    kept = (HALF if bf16 else FLOAT) * (inputs + masks + inner)
    kept += FLOAT * layer.norm_vectors * hidden
    return kept + attention_per_token(layer, length, attention, bf16)


def attention_per_token(layer: Layer, length: int, attention: str, bf16: bool) -> int:
    """The fused kernel keeps the mask and each head's normaliser, eager attention each head's
    probabilities: float32, and with autocast a bf16 copy; and what relative positions add."""
    if attention == "eager" or layer.eager:
        if bf16:
            return layer.heads * ((FLOAT + HALF) * length + HALF * layer.relative)
        gathered = 6 * length if layer.relative else 0
        return layer.heads * (FLOAT * (length + layer.relative) + gathered)
    return length * (HALF if bf16 else FLOAT) + FLOAT * layer.heads


def working(layer: Layer, bf16: bool) -> int:
    """Bytes per token of the gradients in one layer's backward: those of its widest part."""
    return (HALF if bf16 else FLOAT) * (4 * layer.neurons + 4 * layer.hidden)


def scoring_bytes(
    config: Mapping[str, Any], length: int, execution: ExecutionSpec, tokens: int
) -> int:
    """Of `tokens` of the importance pass, in examples of `length`: no weight asks for its input,
    nothing is dropped, what the gates need is kept."""
    shapes, layer = shapes_of(config), layer_of(config)
    bf16 = execution.precision != "fp32"
    inner = 4 * layer.width + layer.ffn_vectors * layer.neurons
    each = (HALF if bf16 else FLOAT) * inner + FLOAT * layer.norm_vectors * layer.hidden
    each += attention_per_token(layer, length, execution.attention, bf16)
    return tokens * (shapes.layers * shapes.repeats * each + working(layer, bf16))


def scoring_tokens(
    config: Mapping[str, Any], length: int, execution: ExecutionSpec, most: int, room: int
) -> int:
    """Tokens of a batch of the importance pass: `most`, or what fits into `room` bytes; at least
    one example of `length`."""
    return max(length, min(most, room // scoring_bytes(config, length, execution, 1)))


def cast_weights(shapes: Shapes) -> int:
    """Autocast's bf16 copies of the layers' weights, which live until the backward used them."""
    return HALF * prunable_weights(shapes, ("heads", "blocks"))
