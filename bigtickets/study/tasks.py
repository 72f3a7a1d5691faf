"""The GLUE tasks and the metrics, as tables."""

from dataclasses import dataclass

from bigtickets.errors import InputError
from bigtickets.study.spec import TaskSpec


@dataclass(frozen=True)
class Metric:
    """A headline metric; higher is better."""

    name: str
    regression: bool
    """Whether it compares numbers, not classes."""
    keys: tuple[str, ...]
    """What it is made of; the score is their mean."""
    meaning: str
    """For people."""


@dataclass(frozen=True)
class GlueTask:
    """One GLUE task as the Hub's `nyu-mll/glue` has it."""

    name: str
    text: tuple[str, ...]
    """Text columns."""
    labels: tuple[str, ...] | None
    """Class names in the Hub's order; None for regression."""
    metric: str
    rows: dict[str, int]
    """Published number of rows of the training and the evaluation splits."""
    evaluation: tuple[str, ...] = ("validation",)
    """Splits that are evaluated on; the test labels are not public."""


_METRICS = (
    Metric("accuracy", False, ("accuracy",), "share of right predictions"),
    Metric("f1", False, ("f1",), "F1 of class 1; of more than two classes, their mean"),
    Metric("matthews", False, ("matthews",), "Matthews correlation"),
    Metric("accuracy_f1", False, ("accuracy", "f1"), "mean of accuracy and F1"),
    Metric("pearson", True, ("pearson",), "Pearson correlation"),
    Metric("spearman", True, ("spearman",), "Spearman rank correlation"),
    Metric("pearson_spearman", True, ("pearson", "spearman"), "mean of Pearson and Spearman"),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
MODULE = "module:"
"""Before the name of a headline that a metric module computes; no metric of the table has it."""

_PAIR = ("sentence1", "sentence2")
_GLUE = (
    GlueTask(
        "cola",
        ("sentence",),
        ("unacceptable", "acceptable"),
        "matthews",
        {"train": 8551, "validation": 1043},
    ),
    GlueTask(
        "sst2",
        ("sentence",),
        ("negative", "positive"),
        "accuracy",
        {"train": 67349, "validation": 872},
    ),
    GlueTask(
        "mrpc",
        _PAIR,
        ("not_equivalent", "equivalent"),
        "accuracy_f1",
        {"train": 3668, "validation": 408},
    ),
    GlueTask(
        "qqp",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        "accuracy_f1",
        {"train": 363846, "validation": 40430},
    ),
    GlueTask("stsb", _PAIR, None, "pearson_spearman", {"train": 5749, "validation": 1500}),
    GlueTask(
        "mnli",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        {"train": 392702, "validation_matched": 9815, "validation_mismatched": 9832},
        ("validation_matched", "validation_mismatched"),
    ),
    GlueTask(
        "qnli",
        ("question", "sentence"),
        ("entailment", "not_entailment"),
        "accuracy",
        {"train": 104743, "validation": 5463},
    ),
    GlueTask(
        "rte",
        _PAIR,
        ("entailment", "not_entailment"),
        "accuracy",
        {"train": 2490, "validation": 277},
    ),
    GlueTask(
        "wnli",
        _PAIR,
        ("not_entailment", "entailment"),
        "accuracy",
        {"train": 635, "validation": 71},
    ),
)
GLUE: dict[str, GlueTask] = {task.name: task for task in _GLUE}


def glue_task(name: str) -> TaskSpec:
    """The spec of a GLUE task; InputError for an unknown name."""
    if name not in GLUE:
        raise InputError(f"{name!r} is no GLUE task; there are {', '.join(GLUE)}")
    task = GLUE[name]
    return TaskSpec(
        name=name,
        identity=f"glue/{name}",
        text=task.text,
        label="label",
        metric=task.metric,
        labels=task.labels,
        regression=is_regression(task.metric),
        glue=True,
        validation=tuple((split, ()) for split in task.evaluation),
    )


def is_regression(metric: str) -> bool:
    """Whether a metric of `METRICS` compares numbers, so that the model has one output."""
    return METRICS[metric].regression
