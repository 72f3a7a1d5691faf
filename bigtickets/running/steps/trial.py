"""One trial: load pre-trained weights, remove units, train, evaluate, write the record."""

import shutil
import time

from bigtickets.errors import Interrupted
from bigtickets.running.context import Context, commit
from bigtickets.running.steps.dense import keep_weights
from bigtickets.running.steps.prepared import build_run, prepare_trial
from bigtickets.running.steps.records import write_record
from bigtickets.running.steps.results import (
    Predictions,
    link_events,
    peak_memory,
    trial_result,
    write_results,
)
from bigtickets.study.claims import Claim
from bigtickets.study.steps import Step
from bigtickets.training import loop
from bigtickets.training.engine import computes_in_bf16
from bigtickets.training.evaluation import predict
from bigtickets.training.hardware import reset_peak_memory
from bigtickets.training.splits import evaluation_names, load_record, load_split


def run_trial(context: Context, step: Step, claim: Claim) -> bool:
    """Train, evaluate and commit one trial; False if another life was first."""
    started = time.monotonic()
    reset_peak_memory(context.ranks.device)
    prepared = prepare_trial(context, step)
    loaded_s = time.monotonic() - started
    attempt = context.folder.attempt(step.id, claim.attempt)
    engine, run = build_run(context, step, prepared, attempt)
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
    memory_gb = peak_memory(context.ranks)
    if not context.ranks.first:
        return True
    # Every rank has all predictions; a metric module's code need run on one only.
    result = trial_result(context, step, prepared, progress, predictions, timings, memory_gb)
    write_results(attempt, progress.step, predictions, result)
    write_record(context, step, claim, attempt, result)
    final = context.folder.trial(step.id)
    committed = commit(context, claim, attempt, final)
    if context.done(step.id):
        # Not before: between the two a kill would leave a pointer to checkpoints that are gone.
        shutil.rmtree(final / "checkpoints", ignore_errors=True)
        link_events(context, step)
        shutil.rmtree(context.folder.work(step.id), ignore_errors=True)
    return committed


def _evaluate(context: Context, step: Step, run: loop.Run, progress: loop.Progress) -> Predictions:
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
