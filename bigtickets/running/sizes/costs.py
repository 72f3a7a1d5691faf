"""What is left of a study in FLOPs, hours and disk."""

from dataclasses import dataclass

from bigtickets.errors import BigticketsError
from bigtickets.files import read_json
from bigtickets.study.folder import RunFolder
from bigtickets.study.sources import split_files
from bigtickets.study.spec import ModelSpec, StudySpec, TaskSpec
from bigtickets.study.steps import Step, data_id
from bigtickets.study.tasks import GLUE
from bigtickets.tickets.families import Shapes, forward_flops, model_parameters, prunable_weights

ASSUMED_TOKENS = 40
"""Tokens of an example where the data isn't tokenised yet (but not above max_length)."""
ASSUMED_FLOPS = 1e11
"""FLOP/s where no trial has run yet: about two CPU cores; an A100 does a thousand times that."""

MOST_RECORDS = 500
"""Of so many trials the speed is read; more would tell no more."""


@dataclass(frozen=True)
class ModelCost:
    """What one model of a study needs."""

    name: str
    parameters: int
    encoder_parameters: int
    trials_left: int
    flops: float
    """Of the training that is left."""


def model_cost(
    study: StudySpec, folder: RunFolder, model: ModelSpec, shapes: Shapes, left: list[Step]
) -> ModelCost:
    """What the trials of one model that are `left` cost."""
    trials = [s for s in left if s.model == model.name and s.step == "trial"]
    flops = 0.0
    for task in study.tasks:
        mine = [step for step in trials if step.task == task.name]
        if mine:
            examples, tokens = _examples_and_tokens(folder, model, task)
            # Backward is twice forward; a ticket removes about its ratio.
            each = 3 * forward_flops(shapes, tokens)
            flops += sum(each * _passes(model, examples, s) * (1 - s.ratio) for s in mine)
    return ModelCost(
        name=model.name,
        parameters=model_parameters(shapes, 2),
        encoder_parameters=prunable_weights(shapes, ("heads", "neurons")),
        trials_left=len(trials),
        flops=flops,
    )


def _passes(model: ModelSpec, examples: int, step: Step) -> float:
    """Examples that a trial trains on, each as often as it is seen."""
    passes = model.training.epochs * examples * step.data_fraction
    if model.training.max_steps is None:
        return passes
    return min(passes, model.training.max_steps * model.training.batch_size)


def speed_of_trials(folder: RunFolder, steps: list[Step], done: set[str]) -> tuple[float, str]:
    """(FLOP/s, where that is from): the mean of the trials that this run folder has."""
    speeds = []
    finished = [step.id for step in steps if step.step == "trial" and step.id in done]
    for trial in finished[:: 1 + len(finished) // MOST_RECORDS]:
        record = read_json(folder.result("trial", trial))
        seconds = max(record["timings"]["total_s"], 1e-9)
        share = min(1.0, record["timings"]["train_s"] / seconds)  # resumed: over several lives
        speeds.append(record["throughput"]["model_flops_per_s"] * share)
    if len(speeds) < len(finished):
        return sum(speeds) / len(speeds), f"at the speed of {len(speeds)} of the trials done"
    if speeds:
        return sum(speeds) / len(speeds), f"at the speed of the {len(speeds)} trials done"
    return ASSUMED_FLOPS, f"assuming {ASSUMED_FLOPS / 1e9:.0f} GFLOP/s; known better after a trial"


def disk_bytes(study: StudySpec, steps: list[Step], costs: list[ModelCost]) -> float:
    """Scored dense weights, two checkpoints of a trial per model, and what each trial leaves."""
    by_model = {cost.name: cost.parameters for cost in costs}
    scored = sum(4 * by_model.get(s.model, 0) for s in steps if s.step == "scores")
    checkpoints = 2 * 12 * max(by_model.values(), default=0)
    per_trial = 100_000
    return scored + checkpoints + per_trial * sum(s.step == "trial" for s in steps)


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
