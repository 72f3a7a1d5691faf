"""One trial: load pre-trained weights, remove units, train, evaluate, write the record."""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from bigtickets.errors import Interrupted
from bigtickets.files import read_json, replacing
from bigtickets.running.context import Context, commit
from bigtickets.running.records import write_record
from bigtickets.study.claims import Claim
from bigtickets.study.steps import Step
from bigtickets.tickets.families import forward_flops, prunable_weights
from bigtickets.tickets.surgery import remove_units
from bigtickets.tickets.ticket import Ticket
from bigtickets.tickets.units import model_shapes
from bigtickets.training import loop
from bigtickets.training.batches import training_batches
from bigtickets.training.dropout import MaskKey, install_dropout
from bigtickets.training.engine import Engine, computes_in_bf16
from bigtickets.training.evaluation import predict
from bigtickets.training.hardware import peak_flops, reset_peak_memory
from bigtickets.training.metrics import evaluate_splits
from bigtickets.training.metrics_log import MetricsLog, read_metrics
from bigtickets.training.models import load_model, randomize
from bigtickets.training.schedule import total_steps
from bigtickets.training.splits import Split, evaluation_names, load_record, load_split, subset


@dataclass(frozen=True)
class Prepared:
    """A trial's model and data, before training."""

    network: PreTrainedModel
    ticket: Ticket | None
    counts: dict[str, int]
    flops_of_length: Any
    """Forward FLOPs of one example by its length in tokens."""
    train_split: Split
    chosen: np.ndarray
    """Indices of the training examples."""
    mask_key: MaskKey


def run_trial(context: Context, step: Step, claim: Claim) -> bool:
    """Train, evaluate and commit one trial; False if another life was first."""
    started = time.monotonic()
    reset_peak_memory(context.ranks.device)
    prepared = prepare_trial(context, step)
    loaded_s = time.monotonic() - started
    attempt = context.folder.attempt(step.id, claim.attempt)
    engine, run = _build(context, step, prepared, attempt)
    try:
        progress = loop.train(run)
        evaluated_from = time.monotonic()
        predictions = _evaluate(context, step, run, progress)
        evaluated_s = time.monotonic() - evaluated_from
        keep_weights(context, step, engine)
    finally:
        engine.close()
    timings = {
        "load_s": loaded_s,
        "train_s": progress.seconds,
        "eval_s": evaluated_s,
        "total_s": time.monotonic() - started,
    }
    result = _result(context, step, prepared, progress, predictions, timings)
    if not context.ranks.first:
        return True
    _write_results(attempt, progress.step, predictions, result)
    write_record(context, step, claim, attempt, result)
    shutil.rmtree(attempt / "checkpoints", ignore_errors=True)
    committed = commit(context, claim, attempt, context.folder.trial(step.id))
    link_events(context, step)
    shutil.rmtree(context.folder.work(step.id), ignore_errors=True)
    return committed


def link_events(context: Context, step: Step) -> None:
    """Show a trial in TensorBoard's folder under a name that people can read."""
    link, target = context.folder.tb / step.label, context.folder.trial(step.id)
    link.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)


def dense_network(context: Context, dense: Step, attempt: Path) -> PreTrainedModel:
    """A dense trial's fine-tuned model; trained again, to the same weights, if they are gone."""
    prepared = prepare_trial(context, dense)
    path = context.folder.dense_weights(dense.id)
    if not path.exists():
        engine, run = _build(context, dense, prepared, attempt)
        try:
            loop.train(run)
            keep_weights(context, dense, engine)
        finally:
            engine.close()
        context.ranks.barrier()
        shutil.rmtree(attempt, ignore_errors=True)
        prepared = prepare_trial(context, dense)
    load_weights(prepared.network, path)
    return prepared.network


def prepare_trial(context: Context, step: Step) -> Prepared:
    """The model with its ticket applied, and the training examples."""
    model, data = context.model(step), context.data(step)
    record = load_record(data)
    train_split = load_split(data, "train")
    assert step.seed is not None
    network = load_model(model, record["outputs"], step.seed)
    network.config.pad_token_id = record["tokenizer"]["pad_id"]
    network.config.problem_type = None
    shapes = model_shapes(network)
    dense_parameters = _numel(network)
    ticket = None
    if step.ticket:
        path = context.folder.ticket(step.ticket)
        ticket = Ticket.from_json(read_json(path), str(path))
        remove_units(network, ticket.kept)
    if step.kind == "reinit":
        randomize(network, step.seed)
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
    )


def keep_weights(context: Context, step: Step, engine: Engine) -> None:
    """Store a dense trial's weights where an importance pass will look for them."""
    path = context.folder.dense_weights(step.id)
    if step.id not in context.scored or path.exists():
        return
    weights = engine.weights()
    if context.ranks.first:
        with replacing(path) as temporary:
            save_file(weights, temporary)
    context.ranks.barrier()


def load_weights(network: PreTrainedModel, path: Path) -> None:
    """Put stored weights into a network of the same shapes."""
    from safetensors.torch import load_file

    weights = load_file(path)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])


def _build(
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
    engine = Engine(prepared.network, model.training, model.execution, context.ranks)
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


def _evaluate(
    context: Context, step: Step, run: loop.Run, progress: loop.Progress
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name of the split, logits, labels) of each evaluation split."""
    data = context.data(step)
    names = [name for name, _ in context.task(step).validation]
    bf16 = computes_in_bf16(run.execution, run.ranks.device)
    predictions = []
    try:
        for name, key in zip(names, evaluation_names(load_record(data)), strict=True):
            split = load_split(data, key)
            logits = predict(run.engine.module, split, run.ranks, bf16, context.check_stop)
            predictions.append((name, logits, split.labels.numpy()))
    except Interrupted:
        loop.save(run, progress)
        raise
    return predictions


def _result(
    context: Context,
    step: Step,
    prepared: Prepared,
    progress: loop.Progress,
    predictions: list[tuple[str, np.ndarray, np.ndarray]],
    timings: dict[str, float],
) -> dict[str, Any]:
    """The record's results."""
    task, ticket = context.task(step), prepared.ticket
    evaluation = evaluate_splits(task.metric, predictions)
    fractions = ticket.fractions if ticket else {"encoder": 0.0, "model": 0.0, "flops": 0.0}
    return {
        "metrics": evaluation.metrics,
        "headline": task.metric,
        "majority_score": evaluation.majority_score,
        "degenerate": "nan" if progress.diverged else evaluation.degenerate,
        "counts": {
            "train_examples": len(prepared.chosen),
            "eval_examples": sum(len(labels) for _, _, labels in predictions),
            "steps": progress.step,
            "tokens": progress.tokens,
            **prepared.counts,
        },
        "fractions": fractions,
        "ticket": {"id": step.ticket, "hash": ticket.hash} if ticket else None,
        "timings": {key: round(value, 4) for key, value in timings.items()},
        "throughput": _throughput(context, prepared, progress),
        "resumed_at": progress.resumed,
    }


def _throughput(
    context: Context, prepared: Prepared, progress: loop.Progress
) -> dict[str, float | None]:
    """Rates of the training steps; FLOPs are those of the pruned shapes at real lengths."""
    lengths, counts = np.unique(prepared.train_split.lengths[prepared.chosen], return_counts=True)
    forward = sum(
        prepared.flops_of_length(int(n)) * int(c) for n, c in zip(lengths, counts, strict=True)
    )
    # The backward pass costs twice the forward.
    flops = 3 * forward / len(prepared.chosen) * progress.examples
    seconds = max(progress.seconds, 1e-9)
    peak = peak_flops(context.ranks.device)
    return {
        "examples_per_s": round(progress.examples / seconds, 3),
        "tokens_per_s": round(progress.tokens / seconds, 3),
        "model_flops_per_s": round(flops / seconds),
        "mfu": round(flops / seconds / peak / context.ranks.world_size, 5) if peak else None,
    }


def _write_results(
    attempt: Path,
    last_step: int,
    predictions: list[tuple[str, np.ndarray, np.ndarray]],
    result: dict[str, Any],
) -> None:
    """Add the evaluation to the metrics and store the predictions."""
    log = MetricsLog(attempt, read_metrics(attempt, last_step))
    log.add({"step": last_step, "eval": result["metrics"]})
    log.close()
    tensors: dict[str, Tensor] = {}
    for i, (_, logits, labels) in enumerate(predictions):
        suffix = f"_{i}" if i else ""
        tensors[f"logits{suffix}"] = torch.from_numpy(logits).contiguous()
        tensors[f"labels{suffix}"] = torch.from_numpy(labels).contiguous()
    with replacing(attempt / "predictions.safetensors") as temporary:
        save_file(tensors, temporary)


def _numel(network: PreTrainedModel) -> int:
    return sum(p.numel() for p in network.parameters())
