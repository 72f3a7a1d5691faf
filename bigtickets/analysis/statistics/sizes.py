"""How gain, collapse point and sharpness change with the size of the model.

Two sizes are a difference and not a trend; one size says nothing about size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import pandas as pd

from bigtickets.analysis.statistics.estimates import Estimate, unavailable
from bigtickets.analysis.statistics.gain import Gain
from bigtickets.analysis.statistics.size_tests import mixed_slope, permutation_test
from bigtickets.analysis.statistics.transition import Transition
from bigtickets.analysis.statistics.trend import crossed_slope, difference, two_level_bootstrap
from bigtickets.errors import InputError

What = Literal["gain", "collapse_sd", "collapse_point", "sharpness"]


@dataclass(frozen=True)
class SizePoint:
    """One quantity of one model on one task."""

    model: str
    parameters: int
    task: str
    value: float | None
    standard_error: float | None = None
    df: float | None = None
    """Degrees of freedom of the standard error."""
    reason: str | None = None
    """Why there is no value."""


@dataclass(frozen=True)
class SizeLaw:
    """The quantity against log10(encoder parameters)."""

    what: str
    kind: Literal["trend", "difference", "none"]
    slope: Estimate
    """Change per tenfold parameters; for `difference`: larger model minus smaller one. The
    interval is for other models and tasks like these."""
    bootstrap: Estimate
    """The same slope with a two-level bootstrap's interval: other tasks and seeds, these models."""
    mixed: Estimate
    """Linear mixed model with tasks as random effect. Its Wald interval knows neither of models
    that lie off the trend nor of tasks with slopes of their own, and is then much too narrow."""
    p_permutation: float | None
    """Size labels permuted over the models, the same way in every task. Exact for "size matters
    in no task"; where tasks have slopes of their own that cancel on average, it is too small."""
    p_smallest: float | None
    """The least p-value that this number of sizes can give."""
    p_within_tasks: float | None
    """Size labels permuted in each task by itself: right only if, besides, models differ in
    nothing that all tasks see; else far too small."""
    found: bool
    """The slope's interval excludes 0: it alone keeps its level in all the simulations of
    benchmarks/statistics_truth.py."""
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    points: int
    left_out: tuple[tuple[str, str, str], ...]
    """(model, task, reason) of the values that do not exist. A collapse point that lies beyond
    the levels is not missing at random: sizes that lose many are flattered or harmed by it."""
    note: str
    reason: str | None = None


def points_of(results: Sequence[Gain | Transition], what: What) -> list[SizePoint]:
    """The quantity of each result: de-biased gain, collapse point (x), or 1 / logistic width."""
    if what not in get_args(What):
        raise InputError(f"{what!r}: not one of {', '.join(get_args(What))}")
    return [_point(result, what) for result in results]


def _point(result: Gain | Transition, what: What) -> SizePoint:
    estimate = _estimate(result, what)
    value, error = estimate.value, estimate.standard_error
    reason = None if value is not None else estimate.reason
    if what in ("collapse_sd", "collapse_point") and estimate.high is None:
        value, reason = None, estimate.reason or "the collapse is not sure"
    if what == "sharpness" and value is not None:
        value, error = (1 / value, None) if value > 0 else (None, None)
    return SizePoint(
        result.model, result.parameters, result.task, value, error, estimate.df, reason
    )


def _estimate(result: Gain | Transition, what: What) -> Estimate:
    if isinstance(result, Gain):
        wanted = result.debiased if what == "gain" else None
    else:
        wanted = {
            "collapse_sd": result.collapse_sd,
            "collapse_point": result.collapse_point,
            "sharpness": result.logistic.width,
        }.get(what)
    if wanted is None:
        raise InputError(f"{what}: not a quantity of {type(result).__name__}")
    return wanted


def size_law(
    points: Sequence[SizePoint], what: str, confidence: float = 0.95, seed: int = 0
) -> SizeLaw:
    """Trend over three sizes or more, difference of two, nothing for one.

    value(model, task) = a(task) + b log10(parameters) + model + model x task. Points without a
    value are left out and named.
    """
    known = [p for p in points if p.value is not None and math.isfinite(p.value)]
    left = [p for p in points if p not in known]
    frame = _frame(known)
    sizes = frame["size"].nunique()
    law = _no_law(what, frame, left, confidence)
    if sizes < 2:
        return law
    if sizes > 2:
        return _trend(law, frame, confidence, seed)
    found = difference(frame, confidence)
    note = "two sizes: a difference between these models, not a trend"
    return replace(law, kind="difference", slope=found, found=found.excludes(), note=note)


def _frame(known: Sequence[SizePoint]) -> pd.DataFrame:
    """The points as `bigtickets.analysis.statistics.trend` takes them."""
    rows = [
        (p.model, math.log10(p.parameters), p.task, p.value, p.standard_error, p.df) for p in known
    ]
    frame = pd.DataFrame(rows, columns=["model", "size", "task", "value", "error", "df"])
    return frame.astype({"value": float, "size": float, "error": float, "df": float})


def _no_law(
    what: str, frame: pd.DataFrame, left: Sequence[SizePoint], confidence: float
) -> SizeLaw:
    """The law that claims nothing yet."""
    nothing = unavailable("fewer than two sizes have a value", confidence)
    by_size = frame.sort_values("size")
    return SizeLaw(
        what=what,
        kind="none",
        slope=nothing,
        bootstrap=nothing,
        mixed=nothing,
        p_permutation=None,
        p_smallest=None,
        p_within_tasks=None,
        found=False,
        models=tuple(dict.fromkeys(by_size["model"])),
        tasks=tuple(sorted(set(frame["task"]))),
        points=len(frame),
        left_out=tuple((p.model, p.task, p.reason or "no value") for p in left),
        note="",
        reason=nothing.reason if frame["size"].nunique() < 2 else None,
    )


def _trend(law: SizeLaw, frame: pd.DataFrame, confidence: float, seed: int) -> SizeLaw:
    """Three sizes or more."""
    slope = crossed_slope(frame, confidence)
    p_value, smallest = permutation_test(frame, seed)
    mixed, note = mixed_slope(frame, confidence)
    return replace(
        law,
        kind="trend",
        slope=slope,
        bootstrap=two_level_bootstrap(frame, confidence, seed),
        mixed=mixed,
        p_permutation=p_value,
        p_smallest=smallest,
        p_within_tasks=permutation_test(frame, seed, within_tasks=True)[0],
        found=slope.excludes(),
        note=note,
    )
