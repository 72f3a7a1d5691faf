"""Parameters that belong to no unit, per layout: embeddings, norms, task heads.

Biases of the output projections and norms of queries and keys are not among them: the table of
families says who has those.
"""

from collections.abc import Sequence

from bigtickets.tickets.layouts import Config, Flag, holds
from bigtickets.tickets.shapes import Shapes


def bert(shapes: Shapes, config: Config) -> int:
    """Token, position and type embeddings, their norm and projection; two norms per layer."""
    size = shapes.embedding
    embeddings = (shapes.vocab + shapes.positions + shapes.types + 2) * size
    if size != shapes.hidden:
        embeddings += (size + 1) * shapes.hidden
    return embeddings + 4 * shapes.hidden * shapes.layers


def albert(shapes: Shapes, config: Config) -> int:
    """BERT's, with a projection of the embeddings even between equal sizes."""
    square = shapes.embedding == shapes.hidden
    return bert(shapes, config) + square * (shapes.embedding + 1) * shapes.hidden


def mpnet(shapes: Shapes, config: Config) -> int:
    """BERT's, and a bias per head for each bucket of distances."""
    return bert(shapes, config) + config.get("relative_attention_num_buckets", 32) * shapes.heads


def deberta(shapes: Shapes, config: Config) -> int:
    """Token embeddings with a norm, positions and types if asked for, distances, convolution."""
    hidden, size = shapes.hidden, shapes.embedding
    positions = shapes.positions if config.get("position_biased_input", True) else 0
    count = (shapes.vocab + positions + shapes.types) * size + 2 * hidden
    count += size * hidden if size != hidden else 0
    count += 2 * deberta_span(config) * hidden if config.get("relative_attention") else 0
    count += 2 * hidden if "layer_norm" in str(config.get("norm_rel_ebd")).lower() else 0
    if kernel := config.get("conv_kernel_size") or 0:
        count += kernel * hidden * hidden // config.get("conv_groups", 1) + 3 * hidden
    return count + 4 * hidden * shapes.layers


def deberta_span(config: Config) -> int:
    """Distances to one side that DeBERTa-v2 tells apart."""
    buckets = config.get("position_buckets", -1)
    most = config.get("max_relative_positions", -1)
    most = config["max_position_embeddings"] if most < 1 else most
    return buckets if buckets > 0 else most


def modernbert(shapes: Shapes, config: Config) -> int:
    """Token embeddings; a norm after them, two per layer but one in the first, one at the end."""
    return shapes.vocab * shapes.hidden + (2 * shapes.layers + 1) * _modernbert_norm(shapes, config)


def gpt2(shapes: Shapes, config: Config) -> int:
    """Token and position embeddings; two norms per layer, one at the end."""
    return (shapes.vocab + shapes.positions + 4 * shapes.layers + 2) * shapes.hidden


def opt(shapes: Shapes, config: Config) -> int:
    """GPT-2's with two unused positions, embeddings of another size, and norms that may be bare."""
    hidden, size = shapes.hidden, shapes.embedding
    first = holds(Flag("do_layer_norm_before", True), config)
    norms = 2 * shapes.layers + (first and not config.get("_remove_final_layer_norm"))
    affine = holds(Flag("layer_norm_elementwise_affine", True), config)
    projections = 2 * size * hidden if size != hidden else 0
    embeddings = shapes.vocab * size + (shapes.positions + 2) * hidden
    return embeddings + projections + norms * affine * 2 * hidden


def llama(shapes: Shapes, config: Config) -> int:
    """Token embeddings; two norms without bias per layer, one at the end."""
    return (shapes.vocab + 2 * shapes.layers + 1) * shapes.hidden


def vit(shapes: Shapes, config: Config) -> int:
    """Patch, class and position embeddings; two norms per layer, one at the end."""
    height, width = _pair(config["image_size"])
    rows, columns = _pair(config["patch_size"])
    positions = (height // rows) * (width // columns) + 1
    patch = rows * columns * config.get("num_channels", 3) + 1
    return (patch + 1 + positions + 4 * shapes.layers + 2) * shapes.hidden


def pooled(shapes: Shapes, config: Config) -> tuple[int, int]:
    """One dense layer and a classifier, with biases."""
    return (shapes.hidden + 1) * shapes.hidden, shapes.hidden + 1


def normed(shapes: Shapes, config: Config) -> tuple[int, int]:
    """ModernBERT's dense layer, norm and classifier."""
    dense = (shapes.hidden + holds(Flag("classifier_bias", False), config)) * shapes.hidden
    return dense + _modernbert_norm(shapes, config), shapes.hidden + 1


def scored(shapes: Shapes, config: Config) -> tuple[int, int]:
    """A classifier without bias, on the embeddings' size."""
    return 0, shapes.embedding


def plain(shapes: Shapes, config: Config) -> tuple[int, int]:
    """A classifier with bias."""
    return 0, shapes.hidden + 1


def _modernbert_norm(shapes: Shapes, config: Config) -> int:
    return (1 + holds(Flag("norm_bias", False), config)) * shapes.hidden


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
