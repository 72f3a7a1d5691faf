"""A trial before its first step: the network with its ticket applied, data, engine."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from bigtickets.errors import InputError
from bigtickets.files import read_json, sha256_file
from bigtickets.running.context import Context
from bigtickets.study.steps import Step
from bigtickets.tickets.families import Masks, forward_flops, prunable_weights
from bigtickets.tickets.surgery import remove_units, selections, shrink
from bigtickets.tickets.ticket import Ticket
from bigtickets.tickets.units import model_shapes
from bigtickets.training import loop
from bigtickets.training.batches import training_batches
from bigtickets.training.dropout import MaskKey, install_dropout
from bigtickets.training.engine import Engine
from bigtickets.training.hollow import (
    Source,
    hollow_model,
    names_of,
    pretrained_source,
    stored_source,
)
from bigtickets.training.models import Values, load_model, random_values, randomize
from bigtickets.training.ranks import Ranks
from bigtickets.training.schedule import total_steps
from bigtickets.training.splits import Split, load_record, load_split, subset


@dataclass(frozen=True)
class Prepared:
    """A trial's model and data, before training."""

    network: PreTrainedModel
    ticket: Ticket | None
    counts: dict[str, int]
    flops_of_length: Callable[[int], int]
    """Forward FLOPs of one example by its length in tokens."""
    train_split: Split
    chosen: np.ndarray
    """Indices of the training examples."""
    mask_key: MaskKey
    values: Values | None = None
    """Weights of a network that is hollow because it will be sharded over the ranks."""


def prepare_trial(context: Context, step: Step, stored: Path | None = None) -> Prepared:
    """The model with its ticket applied, and the training examples.

    `stored`: weights that a hollow network takes instead of the pre-trained ones.
    """
    model, data = context.model(step), context.data(step)
    record = load_record(data)
    train_split = load_split(data, "train")
    ticket = _ticket(context, step)
    _check_same(
        context.ranks, data, sha256_file(data / "record.json"), ticket.hash if ticket else None
    )
    build = _hollow if model.execution.zero == 3 else _loaded
    network, values, dense_parameters = build(context, step, record["outputs"], ticket, stored)
    shapes = model_shapes(network)
    network.config.pad_token_id = record["tokenizer"]["pad_id"]
    check_tokens(network, train_split, model.name)
    network.config.problem_type = None
    assert step.seed is not None
    if model.execution.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    mask_key = MaskKey(step.seed)
    install_dropout(network, model.training.dropout, mask_key)
    kept = ticket.kept if ticket else None
    removed = ticket.removed if ticket else {}
    counts = {
        "parameters": _numel(network),
        "dense_parameters": dense_parameters,
        "encoder_parameters": prunable_weights(shapes, ("heads", "neurons")),
        "heads": shapes.layers * shapes.heads - removed.get("heads", 0),
        "neurons": shapes.layers * shapes.neurons - removed.get("neurons", 0),
        "blocks": shapes.layers - removed.get("blocks", 0),
    }
    return Prepared(
        network=network,
        ticket=ticket,
        counts=counts,
        flops_of_length=lambda length: forward_flops(shapes, length, kept),
        train_split=train_split,
        chosen=subset(train_split.labels, fraction=step.data_fraction),
        mask_key=mask_key,
        values=values,
    )


def build_run(
    context: Context, step: Step, prepared: Prepared, attempt: Path
) -> tuple[Engine, loop.Run]:
    model = context.model(step)
    steps = total_steps(model.training, len(prepared.chosen))
    assert step.seed is not None
    batches = training_batches(
        prepared.train_split.lengths,
        model.training.batch_size,
        steps,
        step.seed,
        examples=prepared.chosen,
    )
    engine = Engine(
        prepared.network, model.training, model.execution, context.ranks, prepared.values
    )
    run = loop.Run(
        engine=engine,
        split=prepared.train_split,
        batches=batches,
        training=model.training,
        execution=model.execution,
        ranks=context.ranks,
        mask_key=prepared.mask_key,
        attempt=attempt,
        stop_asked=context.stop.asked,
    )
    return engine, run


def check_tokens(network: PreTrainedModel, split: Split, name: str) -> None:
    """InputError for tokens that the model has no embedding for; often one added for padding."""
    known, largest = network.config.vocab_size, max(split.pad_id, int(split.input_ids.max()))
    if largest >= known:
        raise InputError(
            f"model {name}: its tokenizer has a token {largest}, but the model has {known} "
            "embeddings; resize them (resize_token_embeddings) and save the model again"
        )


def _ticket(context: Context, step: Step) -> Ticket | None:
    if step.ticket is None:
        return None
    path = context.folder.ticket(step.ticket)
    return Ticket.from_json(read_json(path), str(path))


def _check_same(ranks: Ranks, data: Path, digest: str, ticket: str | None) -> None:
    """InputError where this rank sees other files than the first: a folder that is not shared."""
    if ranks.from_first([digest, ticket]) != [digest, ticket]:
        raise InputError(
            f"rank {ranks.rank} on {socket.gethostname()} sees other files than the first rank in "
            f"{data.parent.parent}; the run folder must be one that all nodes share"
        )


def _loaded(
    context: Context, step: Step, outputs: int, ticket: Ticket | None, _: Path | None
) -> tuple[PreTrainedModel, Values | None, int]:
    """(the pruned network, whole on every rank; no values; parameters of the dense one)."""
    assert step.seed is not None
    network = load_model(context.model(step), outputs, step.seed)
    dense_parameters = _numel(network)
    if ticket:
        remove_units(network, ticket.kept)
    if step.kind == "reinit":
        randomize(network, step.seed)
    return network, None, dense_parameters


def _hollow(
    context: Context, step: Step, outputs: int, ticket: Ticket | None, stored: Path | None
) -> tuple[PreTrainedModel, Values | None, int]:
    """(the pruned network without weights; their values; parameters of the dense one)."""
    assert step.seed is not None
    model = context.model(step)
    network = hollow_model(model, outputs)
    dense_parameters = _numel(network)
    source = Source()
    # The others get their part of each weight from the first rank.
    if context.ranks.first and step.kind != "reinit":
        source = (
            stored_source(stored)
            if stored
            else pretrained_source(model, network, outputs, step.seed)
        )
    values = cut_values(network, source, ticket.kept if ticket else {})
    if step.kind == "reinit":
        values = random_values(network, step.seed)
    return network, values, dense_parameters


def cut_values(network: PreTrainedModel, source: Source, kept: Masks) -> Values:
    """Remove units from a hollow network, in place; the weights of what stays."""
    cut = selections(network, kept)
    if kept:
        shrink(network, kept)
    return source.values(names_of(network), cut)


def _numel(network: PreTrainedModel) -> int:
    return sum(p.numel() for p in network.parameters())
