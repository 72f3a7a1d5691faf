"""What a trial leaves: the results of its record, metrics, predictions, a TensorBoard link."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from bigtickets.files import replacing
from bigtickets.running.context import Context
from bigtickets.running.steps.prepared import Prepared
from bigtickets.study.steps import Step
from bigtickets.training import loop
from bigtickets.training.hardware import peak_flops, peak_memory_gb
from bigtickets.training.metrics import evaluate_splits
from bigtickets.training.metrics_log import MetricsLog, read_metrics
from bigtickets.training.ranks import Ranks

Predictions = list[tuple[str, np.ndarray, np.ndarray]]
"""(name of the evaluation split, logits (N, C), labels (N,)) of each."""


def trial_result(
    context: Context,
    step: Step,
    prepared: Prepared,
    progress: loop.Progress,
    predictions: Predictions,
    timings: dict[str, float],
    memory_gb: float,
) -> dict[str, Any]:
    """The record's results; one rank alone may ask for them."""
    task, ticket = context.task(step), prepared.ticket
    evaluation = evaluate_splits(task.metric, predictions, task.module)
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
        "throughput": throughput(
            context.ranks,
            # The backward pass costs twice the forward.
            flops=3 * forward_flops_of(prepared) * progress.examples,
            examples=progress.examples,
            tokens=progress.tokens,
            seconds=progress.seconds,
            communication_s=progress.communication_s,
        ),
        "peak_memory_gb": memory_gb,
        "resumed_at": progress.resumed,
    }


def write_results(
    attempt: Path,
    last_step: int,
    predictions: Predictions,
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


def link_events(context: Context, step: Step) -> None:
    """Show a trial in TensorBoard's folder under a name that people can read."""
    link, target = context.folder.tb / step.label, context.folder.trial(step.id)
    link.parent.mkdir(parents=True, exist_ok=True)
    # In place of a link to an earlier recipe's trial of the same name.
    temporary = link.with_name(f".{step.id}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    os.replace(temporary, link)


def forward_flops_of(prepared: Prepared) -> float:
    """Forward FLOPs of the mean training example: pruned shapes, real lengths."""
    lengths, counts = np.unique(prepared.train_split.lengths[prepared.chosen], return_counts=True)
    forward = sum(
        prepared.flops_of_length(int(n)) * int(c) for n, c in zip(lengths, counts, strict=True)
    )
    return forward / len(prepared.chosen)


def throughput(
    ranks: Ranks,
    *,
    flops: float,
    examples: int,
    tokens: int,
    seconds: float,
    communication_s: float,
) -> dict[str, float | None]:
    """Rates of a stretch of work on all ranks together, and this rank's share of waiting.

    `mfu`: model FLOPs against the devices' bf16 peak; None where that is not known. What
    checkpointing computes twice counts once. `communication`: see training/communication.py.
    """
    seconds = max(seconds, 1e-9)
    peak = peak_flops(ranks.device)
    return {
        "examples_per_s": round(examples / seconds, 3),
        "tokens_per_s": round(tokens / seconds, 3),
        "model_flops_per_s": round(flops / seconds),
        "mfu": round(flops / seconds / peak / ranks.world_size, 5) if peak else None,
        "communication": round(min(1.0, communication_s / seconds), 5),
    }


def peak_memory(ranks: Ranks) -> float:
    """The most that any rank has used since the step began, in GiB; every rank must call it."""
    return round(ranks.max(peak_memory_gb(ranks.device)), 4)
