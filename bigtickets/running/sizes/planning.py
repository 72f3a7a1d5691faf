"""`plan`: what a study is, what of it is there already, and what the rest will take."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bigtickets.analysis.precision import Seeds, seeds_line, seeds_of
from bigtickets.errors import InputError
from bigtickets.running.sizes.costs import disk_bytes, model_cost, speed_of_trials
from bigtickets.running.sizes.machine import this_machine
from bigtickets.running.sizes.memory_table import memory_facts, memory_lines
from bigtickets.running.sizes.sizing import Machine, config_of
from bigtickets.running.words import run_again
from bigtickets.study.folder import RunFolder
from bigtickets.study.pins import pinned_as_before
from bigtickets.study.reader import read_study
from bigtickets.study.spec import StudySpec
from bigtickets.study.state import done_ids, no_collection
from bigtickets.study.steps import Step, expand
from bigtickets.tickets.families import Shapes, shapes_of, units_per_layer


def plan(study_path: Path, out: Path | None, as_json: bool, machine: Machine | None = None) -> None:
    """Print the plan for `machine`, this one if not given; touches nothing."""
    study = read_study(study_path)
    folder = RunFolder((out or Path("runs") / study.study).resolve())
    study = pinned_as_before(study, folder)
    with no_collection():
        facts = plan_facts(study, folder, machine or this_machine())
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    print(f"study {study.study} in {folder.root}")
    for name in ("data", "dense", "scores", "ticket", "trial"):
        total, done = facts["steps"][name]["total"], facts["steps"][name]["done"]
        if total:
            print(f"  {name:<7} {total:>6} steps, {done} done already")
    for cost in facts["models"]:
        print(
            f"  {cost['name']}: {cost['parameters'] / 1e6:.1f} M parameters "
            f"({cost['encoder_parameters'] / 1e6:.1f} M prunable), "
            f"{cost['trials_left']} trials to go"
        )
        for line in memory_lines(cost["memory"]):
            print(f"    {line}")
    for warning in facts["warnings"]:
        print(f"  note: {warning}")
    print(f"  {seeds_line(Seeds(**facts['seeds']))}")
    hours = facts["hours"]
    print(f"  about {_duration(hours)} of compute ({facts['speed_from']})")
    print(f"  about {facts['disk_gb']:.2f} GiB of disk")
    print(f"next: {run_again(study_path, out)}")


def machine_asked(gpu_memory_gb: float | None, gpus_per_node: int | None) -> Machine | None:
    """The machine that the options of `plan` describe; None: this one."""
    if gpu_memory_gb is None and gpus_per_node is not None:
        raise InputError("--gpus-per-node: give --gpu-memory too")
    return None if gpu_memory_gb is None else Machine(gpu_memory_gb, gpus_per_node or 8)


def plan_facts(
    study: StudySpec, folder: RunFolder, machine: Machine | None = None
) -> dict[str, Any]:
    """The plan as JSON; what memory it takes only for a given machine."""
    steps, done = expand(study), done_ids(folder)
    left = [step for step in steps if step.id not in done]
    configs = {model.name: config_of(model) for model in study.models}
    shapes = {name: None if c is None else shapes_of(c) for name, c in configs.items()}
    costs, models = [], []
    for model in study.models:
        config, shape = configs[model.name], shapes[model.name]
        if config is None or shape is None:
            continue
        costs.append(model_cost(study, folder, model, shape, left))
        memory = {"memory": memory_facts(config, model, machine)} if machine else {}
        models.append(asdict(costs[-1]) | memory)
    speed, source = speed_of_trials(folder, steps, done)
    return {
        "study": study.study,
        "run": str(folder.root),
        "steps": _counts(steps, done),
        "machine": asdict(machine) if machine else None,
        "models": models,
        "seeds": asdict(seeds_of(study, folder)),
        "hours": sum(cost.flops for cost in costs) / speed / 3600,
        "speed_from": source,
        "disk_gb": disk_bytes(study, steps, costs) / 2**30,
        "warnings": _warnings(study, shapes),
    }


def _counts(steps: list[Step], done: set[str]) -> dict[str, dict[str, int]]:
    total, ready = (
        Counter(_name(s) for s in steps),
        Counter(_name(s) for s in steps if s.id in done),
    )
    names = ("data", "dense", "scores", "ticket", "trial")
    return {name: {"total": total[name], "done": ready[name]} for name in names}


def _name(step: Step) -> str:
    return "dense" if step.step == "trial" and step.ticket is None else step.step


def _warnings(study: StudySpec, shapes: dict[str, Shapes | None]) -> list[str]:
    """Ratios that the floors do not allow, and models that can't be looked at."""
    found = []
    floors = {"heads": study.tickets.min_heads, "neurons": study.tickets.min_neurons, "blocks": 0}
    for name, shape in shapes.items():
        if shape is None:
            found.append(f"{name} isn't in the local Hub cache: its cost isn't counted")
            continue
        for unit in study.tickets.units:
            per_layer = units_per_layer(shape, unit)
            most = 1 - floors[unit] / per_layer
            beyond = [r for r in study.tickets.ratios if r > most]
            if beyond and unit != "blocks":
                found.append(
                    f"{name}: {floors[unit]} of {per_layer} {unit} stay in each layer, so at most "
                    f"{most:.0%} of them can go; ratios {beyond} remove that many"
                )
    return found


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return "less than a minute"
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"
