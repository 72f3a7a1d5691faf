"""One importance pass: score every unit of a dense model on the training examples."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from bigtickets.errors import InputError
from bigtickets.running.context import Context, commit
from bigtickets.running.sizes.activations import scoring_tokens
from bigtickets.running.steps.dense import prepare_dense
from bigtickets.running.steps.prepared import Prepared, prepare_trial
from bigtickets.running.steps.records import write_record
from bigtickets.running.steps.results import forward_flops_of, peak_memory, throughput
from bigtickets.study.claims import Claim
from bigtickets.study.steps import Step
from bigtickets.tickets.importance import ImportancePass
from bigtickets.tickets.scores import Scores
from bigtickets.training import communication
from bigtickets.training.batches import collate, evaluation_batches
from bigtickets.training.engine import computes_in_bf16, scoring_network
from bigtickets.training.evaluation import autocast, model_inputs
from bigtickets.training.hardware import free_memory, reset_peak_memory, tokens_per_pass
from bigtickets.training.loop import example_losses
from bigtickets.training.splits import Split, subset
from bigtickets.training.watch import paced

STOP_CHECKS = 512
"""Looks at whether somebody wants a pass to stop, about: what the ranks say to each other must not
grow with the number of batches."""
FREE_SHARE = 0.7
"""Of the free memory that a batch may take; the rest is for what its estimate leaves out."""


def run_scores(context: Context, step: Step, claim: Claim) -> bool:
    """Score and commit; False if another life was first."""
    _check_world_size(context, step)
    started = time.monotonic()
    execution, ranks = context.model(step).execution, context.ranks
    reset_peak_memory(ranks.device)
    attempt = context.folder.attempt(step.id, claim.attempt)
    prepared = _prepare(context, step, attempt)
    split = prepared.train_split
    chosen = _examples(context, step, split)
    with scoring_network(prepared.network, prepared.values, execution, ranks) as network:
        loaded, waited = time.monotonic(), communication.seconds()
        scores = score(context, step, network, split, chosen)
        timings = {
            "load_s": loaded - started,
            "score_s": time.monotonic() - loaded,
            "communication_s": communication.seconds() - waited,
        }
    result = _result(context, prepared, scores, chosen, timings)
    if not ranks.first:
        return True
    shutil.rmtree(attempt, ignore_errors=True)
    scores.save(attempt / "scores.safetensors", {"id": step.id, "label": step.label})
    write_record(context, step, claim, attempt, result)
    committed = commit(context, claim, attempt, context.folder.score(step.id))
    if context.done(step.id):
        shutil.rmtree(context.folder.work(step.id), ignore_errors=True)
    return committed


def score(
    context: Context, step: Step, network: PreTrainedModel, split: Split, chosen: np.ndarray
) -> Scores:
    """Scores of `network` on the `chosen` examples: the same on every rank, on any number."""
    importance, ranks = context.study.importance, context.ranks
    execution = context.model(step).execution
    size = importance.batch or (None if execution.micro_batch == "auto" else execution.micro_batch)
    batches = evaluation_batches(
        split.lengths,
        ranks.rank,
        ranks.world_size,
        micro_batch=size,
        tokens=None if size else _tokens(context, step, network),
        examples=chosen,
    )
    bf16 = computes_in_bf16(execution, ranks.device)
    with (
        paced() as alive,
        ImportancePass(
            network,
            units=context.study.tickets.units,
            granularity=importance.granularity,
            device=ranks.device,
        ) as scoring,
    ):
        for i, (indices, weights) in enumerate(batches):
            alive()
            if i % max(1, len(batches) // STOP_CHECKS) == 0:
                context.check_stop()
            batch = collate(split, indices, weights, device=ranks.device)
            with autocast(ranks.device, bf16):
                logits = network(**model_inputs(network, batch)).logits
            losses = example_losses(logits, batch["labels"])
            scoring.add(losses, batch["weight"], batch["attention_mask"])
        scoring.reduce(ranks.sum_)
    return scoring.scores()


def _prepare(context: Context, step: Step, attempt: Path) -> Prepared:
    if context.study.importance.at == "pretrained":
        return prepare_trial(context, step)
    assert step.dense is not None
    return prepare_dense(context, context.steps[step.dense], attempt)


def _tokens(context: Context, step: Step, network: PreTrainedModel) -> int:
    """Padded tokens of a batch; fewer where a large model leaves little memory free."""
    model, ranks = context.model(step), context.ranks
    most, free = tokens_per_pass(ranks.device), free_memory(ranks.device)
    if free is None:
        return most
    config, length = network.config.to_dict(), model.training.max_length
    fitting = scoring_tokens(config, length, model.execution, most, int(FREE_SHARE * free))
    return int(ranks.from_first(fitting))  # batches must be as many on every rank


def _examples(context: Context, step: Step, split: Split) -> np.ndarray:
    """The trial's training examples, or a class-stratified subset of them."""
    chosen = subset(split.labels, fraction=step.data_fraction)
    wanted = context.study.importance.examples
    if wanted == "all" or wanted >= len(chosen):
        return chosen
    return chosen[subset(split.labels[chosen], count=wanted)]


def _check_world_size(context: Context, step: Step) -> None:
    importance, execution = context.study.importance, context.model(step).execution
    world_size = context.ranks.world_size
    if importance.granularity == "legacy_batch" and execution.processes != world_size:
        raise InputError(
            f"importance.granularity: legacy_batch scores depend on the number of processes: "
            f"execution.processes_per_trial is {execution.processes}, "
            f"{world_size} are running"
        )


def _result(
    context: Context,
    prepared: Prepared,
    scores: Scores,
    chosen: np.ndarray,
    timings: dict[str, float],
) -> dict[str, Any]:
    """The record's results; every rank must call it."""
    tokens = int(prepared.train_split.lengths[chosen].sum())
    scored = replace(prepared, chosen=chosen)
    return {
        "hash": scores.digest,
        "counts": {
            "examples": len(chosen),
            "tokens": tokens,
            **{unit: int(sums.size) for unit, sums in scores.sums.items()},
        },
        "stability": {
            k: round(v, 6) if np.isfinite(v) else None for k, v in scores.stability("layer").items()
        },
        "timings": {k: round(timings[k], 4) for k in ("load_s", "score_s")},
        "throughput": throughput(
            context.ranks,
            # No weight has a gradient, so the backward pass costs what the forward does.
            flops=2 * forward_flops_of(scored) * len(chosen),
            examples=len(chosen),
            tokens=tokens,
            seconds=timings["score_s"],
            communication_s=timings["communication_s"],
        ),
        "peak_memory_gb": peak_memory(context.ranks),
    }
