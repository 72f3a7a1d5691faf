"""What must hold in a study beyond the types of its keys."""

from collections.abc import Callable
from typing import Any

from bigtickets.errors import InputError
from bigtickets.study.parsing import shown
from bigtickets.study.spec import ExecutionSpec, ModelSpec, StudySpec, TicketsSpec

# Rules that types cannot say: key -> (holds, what is expected).
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tickets.min_heads": (lambda v: v >= 0, "0 or more"),
    "tickets.min_neurons": (lambda v: v >= 0, "0 or more"),
    "importance.examples": (lambda v: v == "all" or v >= 1, "all, or 1 or more"),
    "importance.batch": (lambda v: v is None or v >= 1, "1 or more"),
    "training.epochs": (lambda v: v > 0, "more than 0"),
    "training.max_steps": (lambda v: v is None or v >= 1, "1 or more"),
    "training.learning_rate": (lambda v: 0 < v <= 1, "more than 0, at most 1"),
    "training.batch_size": (lambda v: v >= 1, "1 or more"),
    "training.warmup": (lambda v: 0 <= v <= 1, "a share of the steps from 0 to 1"),
    "training.weight_decay": (lambda v: v >= 0, "0 or more"),
    "training.max_length": (lambda v: v >= 3, "3 or more: two tokens are special"),
    "training.dropout": (lambda v: 0 <= v < 1, "0 or more, below 1"),
    "training.max_grad_norm": (lambda v: v >= 0, "0 (off) or more"),
    "training.adam_beta1": (lambda v: 0 <= v < 1, "0 or more, below 1"),
    "training.adam_beta2": (lambda v: 0 <= v < 1, "0 or more, below 1"),
    "training.adam_epsilon": (lambda v: v > 0, "more than 0"),
    "execution.zero": (lambda v: v in ("auto", 0, 1, 2, 3), "a ZeRO stage: 0, 1, 2, 3 or auto"),
    "execution.processes_per_trial": (lambda v: v == "auto" or v >= 1, "auto, or 1 or more"),
    "execution.micro_batch": (lambda v: v == "auto" or v >= 1, "auto, or 1 or more"),
    "execution.threads": (lambda v: v == "auto" or v >= 1, "auto, or 1 or more"),
    "execution.checkpoint_every_s": (lambda v: v >= 0, "0 (every step) or more seconds"),
    "analysis.precision": (lambda v: v > 0, "more than 0 points"),
}


def check(spec: StudySpec) -> None:
    """What must hold between and beyond the types."""
    _check_rules(spec.tickets, "tickets")
    _check_rules(spec.importance, "importance")
    _check_rules(spec.analysis, "analysis")
    parts: list[tuple[str, StudySpec | ModelSpec]] = [("", spec)]
    parts += [(f"models[{i}] ({model.name}): ", model) for i, model in enumerate(spec.models)]
    for prefix, part in parts:
        _check_rules(part.training, "training", prefix)
        _check_rules(part.execution, "execution", prefix)
        _check_offload(part.execution, prefix)
    _check_auto(spec)
    _check_twins(spec)
    _check_grid(spec)
    _check_tickets(spec.tickets)
    _check_importance(spec)


def _check_auto(spec: StudySpec) -> None:
    for model in spec.models:
        if model.execution.zero == "auto" and model.execution.ds_config is not None:
            raise InputError(
                f"execution.zero: auto, but {model.execution.ds_config} is for one stage; "
                "give that stage's number"
            )


def _check_twins(spec: StudySpec) -> None:
    """Two names for the same science would be one step, and one of them missing in every table."""
    for i, model in enumerate(spec.models):
        for other in spec.models[:i]:
            if (other.identity, other.training) == (model.identity, model.training):
                raise InputError(
                    f"models[{i}]: {model.name} is the same model and training as {other.name}; "
                    "remove one"
                )
    for i, task in enumerate(spec.tasks):
        for earlier in spec.tasks[:i]:
            if earlier.identity == task.identity:
                raise InputError(f"tasks[{i}]: {task.name} is the same as {earlier.name}")


def _check_rules(part: Any, key: str, prefix: str = "") -> None:
    for name, value in vars(part).items():
        holds, expected = RULES.get(f"{key}.{name}", (lambda v: True, ""))
        if not holds(value):
            raise InputError(f"{prefix}{key}.{name}: {shown(value)}; expected {expected}")


def _check_offload(execution: ExecutionSpec, prefix: str) -> None:
    if not execution.offload:
        return
    if execution.zero != "auto" and execution.zero < 2:
        raise InputError(
            f"{prefix}execution.offload: ZeRO {execution.zero} has nothing to offload; "
            "set execution.zero to 2 or 3"
        )
    if execution.ds_config is not None:
        raise InputError(
            f"{prefix}execution.offload: {execution.ds_config} says what is offloaded; "
            "remove one of the two keys"
        )


def _check_grid(spec: StudySpec) -> None:
    for key, values in (
        ("seeds", spec.seeds),
        ("data_fractions", spec.data_fractions),
        ("tickets.ratios", spec.tickets.ratios),
        ("tickets.kinds", spec.tickets.kinds),
        ("tickets.units", spec.tickets.units),
    ):
        if not values:
            raise InputError(f"{key}: the list is empty; give at least one")
        unique(list(values), key, "value")
    for seed in spec.seeds:
        if not 0 <= seed < 2**31:
            raise InputError(f"seeds: {seed}; expected whole numbers from 0 to 2147483647")
    for fraction in spec.data_fractions:
        if not 0 < fraction <= 1:
            raise InputError(f"data_fractions: {fraction:g}; expected more than 0, at most 1")


def _check_tickets(tickets: TicketsSpec) -> None:
    for ratio in tickets.ratios:
        if not 0 <= ratio < 1:
            raise InputError(
                f"tickets.ratios: {ratio:g}; expected 0 (the dense model) or more, below 1"
            )
    if {"neurons", "blocks"} <= set(tickets.units):
        raise InputError(
            "tickets.units: neurons and blocks overlap (a block is all neurons of a layer); "
            "keep one of them"
        )
    _check_controls(tickets)


def _check_controls(tickets: TicketsSpec) -> None:
    """A control without the winning ticket of its size would be compared with nothing."""
    if tickets.control_ratios is None:
        return
    key = "tickets.control_ratios"
    if "winning" not in tickets.kinds or len(tickets.kinds) == 1:
        raise InputError(
            f"{key}: for kinds beside winning; tickets.kinds has {', '.join(tickets.kinds)}"
        )
    if not tickets.control_ratios:
        raise InputError(f"{key}: the list is empty; give at least one")
    unique(list(tickets.control_ratios), key, "value")
    for ratio in tickets.control_ratios:
        if ratio == 0 or ratio not in tickets.ratios:
            raise InputError(f"{key}: {ratio:g}; expected some of tickets.ratios, without 0")


def _check_importance(spec: StudySpec) -> None:
    legacy = spec.importance.granularity == "legacy_batch"
    if legacy and spec.importance.batch is None:
        raise InputError(
            "importance.batch: legacy_batch scores depend on the micro-batch; give its size"
        )
    if not legacy and spec.importance.batch is not None:
        raise InputError(
            "importance.batch: only legacy_batch depends on a batch size; remove the key"
        )
    if legacy and any(m.execution.processes_per_trial == "auto" for m in spec.models):
        raise InputError(
            "execution.processes_per_trial: legacy_batch scores depend on it; give a number"
        )


def unique(values: list[Any], key: str, what: str) -> None:
    """InputError if a value stands twice."""
    twice = [v for i, v in enumerate(values) if v in values[:i]]
    if twice:
        raise InputError(f"{key}: the {what} {shown(twice[0])} stands twice; remove one")
