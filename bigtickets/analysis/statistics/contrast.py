"""Winning tickets against random and losing ones of the same size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import integrate

from bigtickets.analysis.statistics.curves import Curve, Value, curves
from bigtickets.analysis.statistics.estimates import (
    Array,
    Estimate,
    holm,
    mean_interval,
    p_value,
    unavailable,
)
from bigtickets.errors import InputError

PAIRS = (("winning", "random"), ("winning", "losing"))


@dataclass(frozen=True)
class LevelContrast:
    """One level: mean over seeds of the paired difference between two kinds of ticket."""

    ratio: float
    x: float
    difference: Estimate
    """First kind minus second, same seed; the interval is for this level alone."""
    p_value: float | None
    """Paired t test."""
    p_adjusted: float | None
    """The same, adjusted over the levels of this contrast by Holm's method."""


@dataclass(frozen=True)
class Contrast:
    """Two kinds of ticket over their common levels."""

    model: str
    parameters: int
    task: str
    data_fraction: float
    first: str
    second: str
    value: Value
    levels: tuple[LevelContrast, ...]
    area: Estimate
    """Area between the curves over their range of x: the mean difference, one test in all."""
    correction: str
    size_gap: float | None
    """Largest difference in x between the kinds at one level: equal size must mean equal."""
    seeds: int
    degenerate: int
    missing: int


def contrasts(
    table: pd.DataFrame, pairs: Sequence[tuple[str, str]] = PAIRS, value: Value = "score"
) -> list[Contrast]:
    """Every wanted pair of kinds in every cell that has both."""
    found = []
    for first, second in pairs:
        seconds = {_cell(c): c for c in curves(table, (second,), value)}
        for one in curves(table, (first,), value):
            if _cell(one) in seconds:
                found.append(contrast(one, seconds[_cell(one)]))
    return found


def contrast(first: Curve, second: Curve, confidence: float = 0.95) -> Contrast:
    """Paired by seed and nominal ratio. InputError when the curves are of different cells."""
    if _cell(first) != _cell(second) or first.value != second.value:
        raise InputError(f"{_cell(first)} and {_cell(second)}: not the same model, task and value")
    ratios = [r for r in first.ratios if r in second.ratios]
    seeds = [s for s in first.seeds if s in second.seeds]
    difference_SL = _taken(first, seeds, ratios) - _taken(second, seeds, ratios)
    x_L = np.array([first.x_L[first.ratios.index(r)] for r in ratios])
    other_L = np.array([second.x_L[second.ratios.index(r)] for r in ratios])
    return Contrast(
        model=first.model,
        parameters=first.parameters,
        task=first.task,
        data_fraction=first.data_fraction,
        first=first.kind,
        second=second.kind,
        value=first.value,
        levels=_levels(ratios, x_L, difference_SL, confidence),
        area=_area(x_L, difference_SL, confidence),
        correction="holm",
        size_gap=float(np.abs(x_L - other_L).max()) if ratios else None,
        seeds=int((np.isfinite(difference_SL).sum(1) > 0).sum()),
        degenerate=first.degenerate + second.degenerate,
        missing=int((~np.isfinite(difference_SL)).sum()),
    )


def _cell(curve: Curve) -> tuple[str, str, float]:
    return curve.model, curve.task, curve.data_fraction


def _taken(curve: Curve, seeds: Sequence[int], ratios: Sequence[float]) -> Array:
    """Scores at the wanted seeds and ratios (S, L)."""
    rows = [curve.seeds.index(s) for s in seeds]
    columns = [1 + curve.ratios.index(r) for r in ratios]
    return curve.value_SL[np.ix_(rows, columns)]


def _levels(
    ratios: Sequence[float], x_L: Array, difference_SL: Array, confidence: float
) -> tuple[LevelContrast, ...]:
    """The levels with Holm's adjustment over those that can be tested."""
    estimates = [mean_interval(d_S, confidence) for d_S in difference_SL.T]
    p_values = [p_value(e) for e in estimates]
    known = [p for p in p_values if p is not None]
    adjusted = iter(holm(known))
    return tuple(
        LevelContrast(r, float(x), e, p, None if p is None else next(adjusted))
        for r, x, e, p in zip(ratios, x_L, estimates, p_values, strict=True)
    )


def _area(x_L: Array, difference_SL: Array, confidence: float) -> Estimate:
    """Per seed the trapezoidal mean over x, then Student's t over the seeds with every level."""
    whole_SL = difference_SL[np.isfinite(difference_SL).all(1)]
    if len(x_L) < 2 or len(whole_SL) == 0:
        return unavailable("no seed has two common levels, and all of them", confidence)
    area_S = integrate.trapezoid(whole_SL, x_L, axis=1) / (x_L[-1] - x_L[0])
    return mean_interval(area_S, confidence)
