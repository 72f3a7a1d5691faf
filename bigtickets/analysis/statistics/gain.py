"""The gain of the super ticket, without the bias of having picked the best of many levels.

The best of 8 levels beats the dense model by about half a standard deviation's worth of points
from noise alone. Here a level is chosen on one half of the seeds and its gain estimated on the
other half, over all splits; beside it stand the naive gain and what noise alone would give.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from bigtickets.analysis.statistics.crossfit import debiased_gain
from bigtickets.analysis.statistics.curves import Curve, Value
from bigtickets.analysis.statistics.estimates import (
    Estimate,
    mean_interval,
    mean_or_none,
    t_interval,
    unavailable,
)
from bigtickets.analysis.statistics.examples import Examples
from bigtickets.analysis.statistics.levels import has_examples
from bigtickets.analysis.statistics.null import null_gain


@dataclass(frozen=True)
class Gain:
    """Gain of the best level over the dense model, in the curve's units."""

    model: str
    parameters: int
    task: str
    data_fraction: float
    kind: str
    value: Value
    debiased: Estimate
    """Gain of a level chosen on other seeds (and other examples, where they are given)."""
    naive: float | None
    """Best mean difference: chosen and estimated on the same runs."""
    null: float | None
    """Naive gain that noise alone gives on average."""
    null_high: float | None
    """95 % quantile of the naive gain under noise alone."""
    p_value: float | None
    """That noise alone reaches the naive gain."""
    ratio: float | None
    """Level with the best mean: the ticket to take."""
    x: float | None
    chosen: tuple[tuple[float, float], ...]
    """How often each ratio was chosen over the splits: a super ticket should not wander."""
    found: bool
    """The de-biased gain's interval lies above 0."""
    over: tuple[str, ...]
    """What the interval is over: seeds, or seeds and evaluation examples."""
    seeds: int
    levels: int
    splits: int
    degenerate: int
    missing: int


@dataclass(frozen=True)
class TasksGain:
    """Mean gain of one model over several tasks."""

    model: str
    parameters: int
    data_fraction: float
    kind: str
    value: Value
    tasks: tuple[str, ...]
    these_tasks: Estimate
    """Interval for the mean over exactly these tasks: over their seeds (and examples)."""
    new_tasks: Estimate
    """Interval for the mean over tasks like these: the tasks are resampled too."""
    naive: float | None
    null: float | None
    p_value: float | None
    """Fisher's combination of the tasks' p-values."""
    found: bool
    degenerate: int
    missing: int


def gain(
    curve: Curve, examples: Examples | None = None, confidence: float = 0.95, seed: int = 0
) -> Gain:
    """De-biased, naive and null gain of one curve.

    With `examples` (of every trial that has a score) the examples are split like the seeds, for
    a level that suits just these examples is picked by all seeds alike; the interval is then
    over seeds and examples. A curve without two seeds has no de-biased gain.
    """
    use = examples if examples is not None and has_examples(curve, examples) else None
    mean_L = curve.mean_L
    best = int(np.nanargmax(mean_L)) if np.isfinite(mean_L).any() else None
    null, null_high, p_value = null_gain(curve, seed)
    debiased, chosen, splits = debiased_gain(curve, use, confidence, seed)
    return Gain(
        **named(curve),
        debiased=debiased,
        naive=None if best is None else float(mean_L[best]),
        null=null,
        null_high=null_high,
        p_value=p_value,
        ratio=None if best is None else curve.ratios[best],
        x=None if best is None else float(curve.x_L[best]),
        chosen=chosen,
        found=debiased.low is not None and debiased.low > 0,
        over=("seeds",) if use is None else ("seeds", "examples"),
        seeds=int(curve.usable_S.sum()),
        levels=int(np.isfinite(mean_L).sum()),
        splits=splits,
    )


def in_units_of(curve: Curve, one: Gain) -> Gain:
    """The gain of a score in the units of its rescaled curve.

    Nothing is chosen anew: on coarse scores levels tie, and rounding would settle ties otherwise.
    """
    if curve.reason is not None:
        return gain(curve)

    def scaled(value: float | None) -> float | None:
        return None if value is None else value * curve.scale

    old = one.debiased
    return replace(
        one,
        value=curve.value,
        debiased=replace(
            old,
            value=scaled(old.value),
            low=scaled(old.low),
            high=scaled(old.high),
            standard_error=scaled(old.standard_error),
        ),
        naive=scaled(one.naive),
        null=scaled(one.null),
        null_high=scaled(one.null_high),
    )


def named(curve: Curve) -> dict[str, Any]:
    """What every result says of its curve."""
    keys = ("model", "parameters", "task", "data_fraction", "kind", "value")
    return {key: getattr(curve, key) for key in (*keys, "degenerate", "missing")}


def gain_over_tasks(gains: Sequence[Gain], confidence: float = 0.95) -> TasksGain:
    """Mean over the tasks of one model (same data fraction, kind and value).

    `these_tasks`: the tasks' variances add up, degrees of freedom by Satterthwaite.
    `new_tasks`: Student's t over the tasks' gains, whose spread holds that of tasks, seeds and
    examples together: the two-level interval; two tasks may agree by chance, so it is never
    narrower than the other. Both are unavailable if a task has no gain.
    """
    p_values = [one.p_value for one in gains]
    these = _these_tasks([one.debiased for one in gains], confidence)
    first = gains[0]
    return TasksGain(
        model=first.model,
        parameters=first.parameters,
        data_fraction=first.data_fraction,
        kind=first.kind,
        value=first.value,
        tasks=tuple(one.task for one in gains),
        these_tasks=these,
        new_tasks=_new_tasks([one.debiased.value for one in gains], these, confidence),
        naive=mean_or_none([one.naive for one in gains]),
        null=mean_or_none([one.null for one in gains]),
        p_value=None if None in p_values else float(stats.combine_pvalues(p_values).pvalue),
        found=these.low is not None and these.low > 0,
        degenerate=sum(one.degenerate for one in gains),
        missing=sum(one.missing for one in gains),
    )


def _these_tasks(estimates: Sequence[Estimate], confidence: float) -> Estimate:
    """Mean of independent estimates; variance of the sum, Satterthwaite's degrees of freedom."""
    values = mean_or_none([e.value for e in estimates])
    if values is None:
        return unavailable("a task has no de-biased gain", confidence)
    parts = [(e.standard_error, e.df) for e in estimates]
    known = [(error**2, df) for error, df in parts if error is not None and df is not None]
    if len(known) < len(parts):
        return Estimate(values, confidence=confidence, reason="a task's gain has no interval")
    total = sum(variance for variance, _ in known)
    df = total**2 / sum(variance**2 / df for variance, df in known)
    error = math.sqrt(total) / len(known)
    return t_interval(values, error, df, confidence, "t over seeds, tasks fixed")


def _new_tasks(values: Sequence[float | None], these: Estimate, confidence: float) -> Estimate:
    """Student's t over the tasks' values, and at least the interval for these tasks alone."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return unavailable("a task has no de-biased gain", confidence)
    if len(known) == 1:
        return unavailable("one task says nothing about others", confidence)
    over = replace(mean_interval(known, confidence), method="t over tasks")
    if over.low is None or over.high is None or these.low is None or these.high is None:
        return over
    return replace(over, low=min(over.low, these.low), high=max(over.high, these.high))
