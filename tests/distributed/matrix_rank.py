"""One rank that scores and trains the same model in every way; rank 0 writes what came out.

Usage, under torchrun: matrix_rank.py FOLDER. Reads FOLDER/study.yaml and the data in FOLDER/run,
writes FOLDER/<ranks>/<name>/{scores.safetensors, facts.json} for each way of `ways`.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigtickets.running.context import Context
from bigtickets.running.signals import Stop
from bigtickets.running.steps.prepared import build_run, prepare_trial
from bigtickets.running.steps.results import peak_memory
from bigtickets.running.steps.scoring import score
from bigtickets.running.worker import make_context
from bigtickets.study.folder import open_run
from bigtickets.study.spec import ExecutionSpec
from bigtickets.training import loop
from bigtickets.training.engine import scoring_network
from bigtickets.training.metrics_log import read_metrics
from bigtickets.training.ranks import Ranks, process_group
from bigtickets.training.splits import load_split

STAGES: dict[str, dict[str, Any]] = {
    "zero0": {"zero": 0},
    "zero1": {"zero": 1},
    "zero2": {"zero": 2},
    "zero2_offload": {"zero": 2, "offload": True},
    # So that weights as small as these are shared out at all; else they stay whole on every rank.
    "zero3": {"zero": 3, "ds_config": "zero3.json"},
    "zero3_offload": {"zero": 3, "ds_config": "zero3_offload.json"},
}
FEW = 3
"""Examples of the pass in which, on 4 ranks, one rank has none."""


def ways() -> dict[str, ExecutionSpec]:
    """By name: each stage with two micro-batches, and what else may meet sharding."""
    found = {
        f"{stage}-{micro_batch}": {**keys, "micro_batch": micro_batch}
        for stage, keys in STAGES.items()
        for micro_batch in (1, 4)
    }
    found["zero3-checkpointed"] = {**STAGES["zero3"], "gradient_checkpointing": True}
    found["zero3-eager"] = {**STAGES["zero3"], "attention": "eager"}
    return {name: ExecutionSpec(**keys) for name, keys in found.items()}


def run_way(base: Context, execution: ExecutionSpec, out: Path) -> None:
    """Score the pre-trained model; train three steps of it and of its ticket."""
    model = replace(base.study.models[0], execution=execution)
    context = replace(base, study=replace(base.study, models=(model,)))
    steps = {step.step: step for step in context.steps.values() if not step.ticket}
    facts: dict[str, Any] = {}
    for name, count in (("scores", None), ("few", FEW)):
        scores = _scores(context, steps["scores"], count)
        if context.ranks.first:
            scores.save(out / f"{name}.safetensors")
    pruned = next((s for s in context.steps.values() if s.ticket and _cut(context, s)), None)
    for name, step in (("dense", steps["trial"]), ("pruned", pruned)):
        if step is not None:
            facts[name] = _losses(context, step, out / name / "attempt-1")
    facts["peak_memory_gb"] = peak_memory(context.ranks)
    if context.ranks.first:
        (out / "facts.json").write_text(json.dumps(facts))


def _scores(context: Context, step: Any, count: int | None) -> Any:
    execution, ranks = context.study.models[0].execution, context.ranks
    prepared = prepare_trial(context, step)
    split = load_split(context.data(step), "train")
    chosen = np.arange(count or len(split))
    with scoring_network(prepared.network, prepared.values, execution, ranks) as network:
        return score(context, step, network, split, chosen)


def _cut(context: Context, step: Any) -> bool:
    return context.folder.ticket(step.ticket).exists()


def _losses(context: Context, step: Any, attempt: Path) -> list[float]:
    """Of each step."""
    engine, run = build_run(context, step, prepare_trial(context, step), attempt)
    try:
        loop.train(run)
    finally:
        engine.close()
    return [line["loss"] for line in read_metrics(attempt, 3)] if context.ranks.first else []


def main(folder: Path, ranks: Ranks) -> None:
    context = make_context(open_run(folder / "run"), ranks, Stop())
    for name, execution in ways().items():
        out = folder / str(ranks.world_size) / name
        if ranks.first:
            out.mkdir(parents=True)
        run_way(context, execution, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group() as group:
        main(Path(sys.argv[1]), group)
