"""The record of a step: what was asked, what came out, and where it was computed."""

import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bigtickets.files import write_json
from bigtickets.running.context import Context
from bigtickets.study.claims import Claim
from bigtickets.study.provenance import commit, versions
from bigtickets.study.spec import StudySpec
from bigtickets.study.steps import Step
from bigtickets.training.engine import computes_in_bf16

SCHEMA = 1


def step_spec(context: Context, step: Step) -> dict[str, Any]:
    """What decides a step's result, in words."""
    model, task = context.model(step), context.task(step)
    spec: dict[str, Any] = {
        "model": model.name,
        "model_identity": model.identity,
        "model_path": model.path,
        "task": task.name,
        "task_identity": task.identity,
        "metric": task.metric,
        "metric_module": asdict(task.module) if task.module else None,
        "data_fraction": step.data_fraction,
        "kind": step.kind,
        "ratio": step.ratio,
        "seed": step.seed,
        "training": asdict(model.training),
    }
    return {**spec, **_ticket_spec(context.study, step)}


def _ticket_spec(study: StudySpec, step: Step) -> dict[str, Any]:
    if step.step != "scores" and not step.ticket:
        return {"tickets": None, "importance": None}
    tickets = asdict(study.tickets)
    rule = {k: tickets[k] for k in ("units", "budget", "min_heads", "min_neurons")}
    return {"tickets": rule, "importance": asdict(study.importance)}


def write_record(
    context: Context, step: Step, claim: Claim, folder: Path, result: dict[str, Any]
) -> None:
    """Write record.json into an attempt's folder, as its last file."""
    execution, device = context.model(step).execution, context.ranks.device
    record = {
        "schema": SCHEMA,
        "step": step.step,
        "id": step.id,
        "label": step.label,
        "attempt": claim.attempt,
        "spec": step_spec(context, step),
        **result,
        "execution": {
            **asdict(execution),
            "world_size": context.ranks.world_size,
            "threads": torch.get_num_threads(),
            "device": str(device),
            "computed_in": "bf16" if computes_in_bf16(execution, device) else "fp32",
        },
        "versions": versions(),
        "commit": commit(),
        "host": socket.gethostname(),
        "log": claim.log,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_json(folder / "record.json", record)
