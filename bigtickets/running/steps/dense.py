"""Dense models that are scored: their fine-tuned weights are kept, or trained again."""

import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel

from bigtickets.files import replacing
from bigtickets.running.context import Context
from bigtickets.running.steps.prepared import Prepared, build_run, prepare_trial
from bigtickets.study.steps import Step
from bigtickets.training import loop
from bigtickets.training.engine import Engine
from bigtickets.training.hollow import names_of, stored_source
from bigtickets.training.tensor_files import write_stream


def prepare_dense(context: Context, dense: Step, attempt: Path) -> Prepared:
    """A dense trial's fine-tuned model; trained again, to the same weights, if they are gone."""
    path = context.folder.dense_weights(dense.id)
    # One rank looks for all: on a shared file system they may see different things.
    if not context.ranks.from_first(path.exists()):
        engine, run = build_run(context, dense, prepare_trial(context, dense), attempt)
        try:
            loop.train(run)
            keep_weights(context, dense, engine)
        finally:
            engine.close()
        context.ranks.barrier()
        shutil.rmtree(attempt, ignore_errors=True)
    prepared = prepare_trial(context, dense, path)
    if prepared.values is None:
        load_weights(prepared.network, path)
    return prepared


def keep_weights(context: Context, step: Step, engine: Engine) -> None:
    """Store a dense trial's weights where an importance pass will look for them."""
    path = context.folder.dense_weights(step.id)
    if step.id not in context.scored or context.ranks.from_first(path.exists()):
        return
    weights = engine.weights()
    if context.ranks.first:
        with replacing(path) as temporary:
            write_stream(temporary, weights)
    else:
        weights.drain()
    context.ranks.barrier()


def load_weights(network: PreTrainedModel, path: Path) -> None:
    """Put stored weights into a network of the same shapes."""
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in stored_source(path).values(names_of(network), {}):
            parameters[name].copy_(value)
