"""One importance pass: score every unit of a dense model on the training examples."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from bigtickets.errors import InputError
from bigtickets.running.activations import scoring_tokens
from bigtickets.running.context import Context, commit
from bigtickets.running.dense import dense_network
from bigtickets.running.prepared import prepare_trial
from bigtickets.running.records import write_record
from bigtickets.study.claims import Claim
from bigtickets.study.steps import Step
from bigtickets.tickets.importance import ImportancePass
from bigtickets.tickets.scores import Scores
from bigtickets.training.batches import collate, evaluation_batches
from bigtickets.training.engine import computes_in_bf16
from bigtickets.training.evaluation import autocast, model_inputs
from bigtickets.training.hardware import free_memory, reset_peak_memory, tokens_per_pass
from bigtickets.training.loop import example_losses
from bigtickets.training.splits import Split, load_split, subset

FREE_SHARE = 0.7
"""Of the free memory that a batch may take; the rest is for what its estimate leaves out."""


def run_scores(context: Context, step: Step, claim: Claim) -> bool:
    """Score and commit; False if another life was first."""
    started = time.monotonic()
    _check_world_size(context, step)
    attempt = context.folder.attempt(step.id, claim.attempt)
    network = _scored_network(context, step, attempt)
    network.to(context.ranks.device)  # type: ignore[arg-type]
    reset_peak_memory(context.ranks.device)
    split = load_split(context.data(step), "train")
    chosen = _examples(context, step, split)
    loaded_s = time.monotonic() - started
    scores = score(context, step, network, split, chosen)
    if not context.ranks.first:
        return True
    scored_s = time.monotonic() - started - loaded_s
    shutil.rmtree(attempt, ignore_errors=True)
    scores.save(attempt / "scores.safetensors", {"id": step.id, "label": step.label})
    write_record(context, step, claim, attempt, _result(scores, split, chosen, loaded_s, scored_s))
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
    with ImportancePass(
        network, units=context.study.tickets.units, granularity=importance.granularity
    ) as scoring:
        for indices, weights in batches:
            context.check_stop()
            batch = collate(split, indices, weights, device=ranks.device)
            with autocast(ranks.device, bf16):
                logits = network(**model_inputs(network, batch)).logits
            losses = example_losses(logits, batch["labels"])
            scoring.add(losses, batch["weight"], batch["attention_mask"])
        scoring.reduce(ranks.sum_)
    return scoring.scores()


def _scored_network(context: Context, step: Step, attempt: Path) -> PreTrainedModel:
    if context.study.importance.at == "pretrained":
        return prepare_trial(context, step).network
    assert step.dense is not None
    return dense_network(context, context.steps[step.dense], attempt)


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
    scores: Scores, split: Split, chosen: np.ndarray, loaded_s: float, scored_s: float
) -> dict[str, Any]:
    tokens = int(split.lengths[chosen].sum())
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
        "timings": {"load_s": round(loaded_s, 4), "score_s": round(scored_s, 4)},
        "throughput": {
            "examples_per_s": round(len(chosen) / max(scored_s, 1e-9), 3),
            "tokens_per_s": round(tokens / max(scored_s, 1e-9), 3),
        },
    }
