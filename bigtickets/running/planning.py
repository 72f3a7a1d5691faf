"""`plan`: what a study is, what of it is there already, and what the rest will cost."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bigtickets.errors import BigticketsError
from bigtickets.files import read_json
from bigtickets.running.words import run_again
from bigtickets.study.fingerprint import model_config
from bigtickets.study.folder import RunFolder
from bigtickets.study.pins import pinned_as_before
from bigtickets.study.reader import read_study
from bigtickets.study.sources import split_files
from bigtickets.study.spec import ModelSpec, StudySpec, TaskSpec
from bigtickets.study.state import done_ids
from bigtickets.study.steps import Step, data_id, expand
from bigtickets.study.tasks import GLUE
from bigtickets.tickets.families import (
    Shapes,
    forward_flops,
    model_parameters,
    prunable_weights,
    shapes_of,
    units_per_layer,
)

ASSUMED_TOKENS = 40
"""Tokens of an example where the data isn't tokenised yet (but not above max_length)."""
ASSUMED_FLOPS = 1e11
"""FLOP/s where no trial has run yet: about two CPU cores; an A100 does a thousand times that."""


@dataclass(frozen=True)
class ModelCost:
    """What one model of a study needs."""

    name: str
    parameters: int
    encoder_parameters: int
    trials_left: int
    memory_gb: float
    """Per process: weights, gradients, Adam's moments and activations in float32, in GiB."""
    flops: float
    """Of the training that is left."""


def plan(study_path: Path, out: Path | None, as_json: bool) -> None:
    """Print the plan; touches nothing."""
    study = read_study(study_path)
    folder = RunFolder((out or Path("runs") / study.study).resolve())
    study = pinned_as_before(study, folder)
    facts = plan_facts(study, folder)
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
            f"{cost['trials_left']} trials to go, about {cost['memory_gb']:.1f} GiB per process"
        )
    for warning in facts["warnings"]:
        print(f"  note: {warning}")
    hours = facts["hours"]
    print(f"  about {_duration(hours)} of compute ({facts['speed_from']})")
    print(f"  about {facts['disk_gb']:.2f} GiB of disk")
    print(f"next: {run_again(study_path, out)}")


def plan_facts(study: StudySpec, folder: RunFolder) -> dict[str, Any]:
    """The plan as JSON."""
    steps, done = expand(study), done_ids(folder)
    left = [step for step in steps if step.id not in done]
    shapes = {model.name: _shapes(model) for model in study.models}
    costs = [_cost(study, folder, model, shapes[model.name], left) for model in study.models]
    speed, source = _speed(folder, steps, done)
    known = [cost for cost in costs if cost is not None]
    return {
        "study": study.study,
        "run": str(folder.root),
        "steps": _counts(steps, done),
        "models": [asdict(cost) for cost in known],
        "hours": sum(cost.flops for cost in known) / speed / 3600,
        "speed_from": source,
        "disk_gb": _disk_bytes(study, steps, known) / 2**30,
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


def _shapes(model: ModelSpec) -> Shapes | None:
    """From the config alone; None for a Hub model that isn't in the local cache."""
    if Path(model.path).is_dir():
        return shapes_of(model_config(Path(model.path), model.name))
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
    return shapes_of(read_json(Path(path))) if isinstance(path, str) else None


def _cost(
    study: StudySpec, folder: RunFolder, model: ModelSpec, shapes: Shapes | None, left: list[Step]
) -> ModelCost | None:
    if shapes is None:
        return None
    tasks = {task.name: task for task in study.tasks}
    trials = [s for s in left if s.model == model.name and s.step == "trial"]
    flops = 0.0
    for step in trials:
        examples, tokens = _examples_and_tokens(folder, model, tasks[step.task])
        passes = model.training.epochs * examples * step.data_fraction
        if model.training.max_steps is not None:
            passes = min(passes, model.training.max_steps * model.training.batch_size)
        # Backward is twice forward; a ticket removes about its ratio.
        flops += 3 * passes * forward_flops(shapes, tokens) * (1 - step.ratio)
    return ModelCost(
        name=model.name,
        parameters=model_parameters(shapes, 2),
        encoder_parameters=prunable_weights(shapes, ("heads", "neurons")),
        trials_left=len(trials),
        memory_gb=_memory_bytes(model, shapes) / 2**30,
        flops=flops,
    )


def _examples_and_tokens(folder: RunFolder, model: ModelSpec, task: TaskSpec) -> tuple[int, int]:
    """(training examples, mean tokens of one), from the tokenised data or assumed."""
    try:
        split = read_json(folder.data(data_id(model, task)) / "record.json")["splits"]["train"]
        return split["rows"], max(1, round(split["tokens"] / split["rows"]))
    except BigticketsError:
        return _rows(model, task), min(model.training.max_length, ASSUMED_TOKENS)


def _rows(model: ModelSpec, task: TaskSpec) -> int:
    """Rows of the training split: GLUE's published count, or the lines of the files."""
    if task.glue:
        return GLUE[task.name].rows["train"]
    rows = 0
    for file in (split_files(task, model.execution.data_dir) or {}).get("train", ()):
        if file.path.suffix == ".parquet":
            import pyarrow.parquet

            rows += pyarrow.parquet.ParquetFile(file.path).metadata.num_rows
        else:
            with file.path.open("rb") as lines:
                rows += sum(1 for _ in lines)
    return rows


def _memory_bytes(model: ModelSpec, shapes: Shapes) -> float:
    """Weights, gradients and two moments (16 bytes a parameter), and activations.

    A layer keeps about 12 hidden vectors and 3 of the FFN's width per token, 4 bytes each.
    """
    training, execution = model.training, model.execution
    size = execution.micro_batch
    if size == "auto":
        size = -(-training.batch_size // execution.processes_per_trial)
    width = 12 * shapes.hidden + 3 * shapes.neurons
    layers = 2 if execution.gradient_checkpointing else shapes.layers
    activations = 4 * size * training.max_length * width * layers
    return 16 * model_parameters(shapes, 2) + activations


def _speed(folder: RunFolder, steps: list[Step], done: set[str]) -> tuple[float, str]:
    """(FLOP/s, where that is from): the mean of the trials that this run folder has."""
    speeds = []
    for step in steps:
        if step.step == "trial" and step.id in done:
            record = read_json(folder.result("trial", step.id))
            seconds = max(record["timings"]["total_s"], 1e-9)
            share = min(1.0, record["timings"]["train_s"] / seconds)  # resumed: over several lives
            speeds.append(record["throughput"]["model_flops_per_s"] * share)
    if speeds:
        return sum(speeds) / len(speeds), f"at the speed of the {len(speeds)} trials done"
    return ASSUMED_FLOPS, f"assuming {ASSUMED_FLOPS / 1e9:.0f} GFLOP/s; known better after a trial"


def _disk_bytes(study: StudySpec, steps: list[Step], costs: list[ModelCost]) -> float:
    """Scored dense weights, two checkpoints of a trial per model, and what each trial leaves."""
    by_model = {cost.name: cost.parameters for cost in costs}
    scored = sum(4 * by_model.get(s.model, 0) for s in steps if s.step == "scores")
    checkpoints = 2 * 12 * max(by_model.values(), default=0)
    per_trial = 100_000
    return scored + checkpoints + per_trial * sum(s.step == "trial" for s in steps)


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
