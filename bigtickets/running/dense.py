"""Dense models that are scored: their fine-tuned weights are kept, or trained again."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from bigtickets.files import replacing
from bigtickets.running.context import Context
from bigtickets.running.prepared import build_run, prepare_trial
from bigtickets.study.steps import Step
from bigtickets.training import loop
from bigtickets.training.engine import Engine


def dense_network(context: Context, dense: Step, attempt: Path) -> PreTrainedModel:
    """A dense trial's fine-tuned model; trained again, to the same weights, if they are gone."""
    prepared = prepare_trial(context, dense)
    path = context.folder.dense_weights(dense.id)
    # One rank looks for all: on a shared file system they may see different things.
    if not context.ranks.from_first(path.exists()):
        engine, run = build_run(context, dense, prepared, attempt)
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


def keep_weights(context: Context, step: Step, engine: Engine) -> None:
    """Store a dense trial's weights where an importance pass will look for them."""
    path = context.folder.dense_weights(step.id)
    if step.id not in context.scored or context.ranks.from_first(path.exists()):
        return
    weights = engine.weights()
    if context.ranks.first:
        with replacing(path) as temporary:
            save_file(weights, temporary)
    context.ranks.barrier()


def load_weights(network: PreTrainedModel, path: Path) -> None:
    """Put stored weights into a network of the same shapes."""
    weights = load_file(path)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])
