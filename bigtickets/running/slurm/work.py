"""What of a study is left to do, in SLURM's measures: per shape, in hours, with nodes to avoid."""

from collections import defaultdict
from typing import Any

from bigtickets.errors import BigticketsError
from bigtickets.running.slurm.cluster import Cluster
from bigtickets.running.slurm.limits import ask
from bigtickets.study.claims import read_claims, tried_again
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import ModelSpec, StudySpec
from bigtickets.study.state import done_ids
from bigtickets.study.steps import Step, before_trials, expand

Left = list[tuple[Step, int, bool]]
"""Steps, each with its processes and whether trials wait for it."""
GPU_FLOPS = 1e13
"""FLOP/s of a GPU with small batches, where no trial has run yet: a thirtieth of an A100's peak."""


def processes_of(model: ModelSpec) -> int:
    """Ranks of one trial of a model."""
    return model.execution.processes


def steps_left(study: StudySpec, folder: RunFolder) -> Left:
    """Steps without a result that can be reached: neither they nor what they need has failed."""
    steps, done = expand(study), done_ids(folder)
    claims = read_claims(folder.claims)
    failed = {
        step_id
        for step_id, attempts in claims.items()
        if attempts[-1].state == "failed" and not tried_again(attempts)
    }
    early = before_trials(steps)
    processes = {model.name: processes_of(model) for model in study.models}
    out = failed - done
    left: Left = []
    for step in steps:  # tickets come before trials, and so on: what is needed is known already
        if step.id in out or any(need in out for need in step.needs):
            out.add(step.id)
        elif step.id not in done:
            left.append((step, processes[step.model], step.id in early))
    return left


def hours_left(study: StudySpec, facts: dict[str, Any], cluster: Cluster) -> dict[int, float]:
    """Hours of one group per number of processes, after the speed of the trials done, if any.

    `facts`: those of `plan`.
    """
    models = {model.name: processes_of(model) for model in study.models}
    flops: dict[int, float] = defaultdict(float)
    for cost in facts["models"]:
        flops[models[cost["name"]]] += cost["flops"]
    total = sum(flops.values())
    if cluster.gpus_per_node and speed_is_assumed(facts):
        return {n: work / (GPU_FLOPS * n) / 3600 for n, work in flops.items()}
    return {n: facts["hours"] * work / total for n, work in flops.items() if total}


def speed_is_assumed(facts: dict[str, Any]) -> bool:
    """Whether no trial has run yet that would tell how fast this is."""
    return str(facts["speed_from"]).startswith("assuming")


def troubled_hosts(folder: RunFolder) -> tuple[str, ...]:
    """Nodes on which an unfinished step failed for reasons of the machine."""
    hosts = {
        claim.host.split(".")[0]
        for attempts in read_claims(folder.claims).values()
        for claim in attempts
        if claim.failure == "infra"
    }
    return tuple(sorted(hosts & _nodes())) if hosts else ()


def _nodes() -> set[str]:
    """Names that SLURM knows: it refuses to exclude others."""
    try:
        return set(ask(["sinfo", "--noheader", "--Node", "--format=%N"]).split())
    except BigticketsError:
        return set()
