"""The collapse point of a curve and its three phases: better, as good, worse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bigtickets.analysis.statistics.curves import Curve
from bigtickets.analysis.statistics.estimates import (
    Array,
    Estimate,
    holm,
    mean_interval,
    p_value,
    unavailable,
)
from bigtickets.analysis.statistics.levels import above_floor
from bigtickets.analysis.statistics.null import contenders
from bigtickets.analysis.statistics.resampling import column_means

INVERTED = "inverted t band"


@dataclass(frozen=True)
class Phases:
    """Where a ticket is better than, as good as, and worse than the dense model."""

    better: float | None
    """Phase I: width in x, below the collapse point, where the mean curve is above 0 around a
    level that is surely better; 0 if no level is."""
    as_good: float | None
    """Phase II: what lies between."""
    worse: float | None
    """Phase III: from the collapse point to the last level; 0 if no collapse is sure."""
    labels: tuple[tuple[float, str], ...]
    """(ratio, `better` | `worse` | `as good` | `undecided`): the first two where d(x) differs from
    0 (t test, Holm over the levels), `as good` where it is surely within ± delta."""
    reason: str | None = None


def pooled_deviation(curve: Curve) -> float | None:
    """Pooled standard deviation over seeds of the dense model and its contenders.

    sqrt(mean of the levels' variances), weighted by degrees of freedom. Levels surely worse than
    the dense model stay out: a collapsed level's scatter is no measure of what is as good as.
    """
    value_SL = curve.value_SL[:, contenders(curve)]
    freedom = np.maximum(np.isfinite(value_SL).sum(0) - 1, 0).sum()
    squares = np.nansum((value_SL - column_means(value_SL)) ** 2)
    return math.sqrt(squares / freedom) if freedom > 0 and math.isfinite(squares) else None


def collapse_point(
    x_L: Array, levels: Sequence[Estimate], delta: float | None, confidence: float
) -> Estimate:
    """First x where d(x) < -delta, on straight lines between the levels and from d(0) = 0.

    The interval inverts the pointwise t band: from where its lower edge first falls below
    -delta to where its upper edge does. It needs no bootstrap of the few seeds, and an end that
    the levels don't reach stays open. Delta counts as known.
    """
    if delta is None:
        return unavailable("no delta: fewer than two seeds", confidence)
    known = [(x, e) for x, e in zip(x_L, levels, strict=True) if e.value is not None]
    if not known:
        return unavailable("no level has a score beside the dense model's", confidence)
    xs = [0.0, *(float(x) for x, _ in known)]
    value = _crossing(xs, [0.0, *(_or(e.value, e) for _, e in known)], -delta)
    low = _crossing(xs, [0.0, *(_or(e.low, e) for _, e in known)], -delta)
    high = _crossing(xs, [0.0, *(_or(e.high, e) for _, e in known)], -delta)
    bounded = any(e.low is not None for _, e in known)
    reason = None if bounded else "one seed: no interval"
    if value is None:
        reason = "no level is worse than the dense model by more than delta"
    elif high is None:
        reason = "the upper edge of the band stays above minus delta"
    return Estimate(
        value,
        low if bounded else None,
        high if bounded else None,
        confidence=confidence,
        method=INVERTED,
        reason=reason,
    )


def _or(edge: float | None, estimate: Estimate) -> float:
    """An edge of the band; the value itself where there is no interval."""
    return edge if edge is not None else float(estimate.value or 0.0)


def _crossing(xs: Sequence[float], ys: Sequence[float], threshold: float) -> float | None:
    """First x at which the polyline falls below the threshold."""
    for (x0, y0), (x1, y1) in zip(
        zip(xs, ys, strict=True), zip(xs[1:], ys[1:], strict=True), strict=False
    ):
        if y1 < threshold:
            return x0 if y0 < threshold else x0 + (x1 - x0) * (y0 - threshold) / (y0 - y1)
    return None


def slope_after(curve: Curve, collapse: Estimate, confidence: float) -> Estimate:
    """Mean over the seeds of the least-squares slope of d(x), per unit x, past the collapse.

    From where the collapse is sure (the last level before the upper end of its interval, so that
    levels of the plateau do not flatten it) to the last level, or to the floor
    (`levels.above_floor`) if that comes first.
    """
    if collapse.high is None:
        return unavailable(collapse.reason or "no sure collapse", confidence)
    x_L = np.r_[0.0, curve.x_L]
    difference_SL = np.pad(curve.difference_SL, ((0, 0), (1, 0)))
    start = max(int(np.searchsorted(x_L, collapse.high)) - 1, 0)
    past = (np.arange(len(x_L)) >= start) & (x_L <= above_floor(curve)[0][-1])
    slopes = [_slope(x_L[past], d_L[past]) for d_L in difference_SL[curve.usable_S]]
    return mean_interval([s for s in slopes if s is not None], confidence)


def _slope(x_L: Array, y_L: Array) -> float | None:
    """Least-squares slope of the known points; None below two."""
    known = np.isfinite(y_L)
    if known.sum() < 2:
        return None
    return float(stats.linregress(x_L[known], y_L[known]).slope)


def phases(curve: Curve, collapse: Estimate, levels: Sequence[Estimate], delta: float) -> Phases:
    """Widths and labels; `collapse` and `delta` are those of one pooled standard deviation.

    A collapse counts when it is sure: when its interval has an upper end.
    """
    known = [i for i, e in enumerate(levels) if e.value is not None]
    if not known:
        return no_phases("no level has a score beside the dense model's")
    labels = _labels([levels[i] for i in known], delta)
    last = float(curve.x_L[known[-1]])
    end = last if collapse.value is None or collapse.high is None else collapse.value
    xs = [0.0, *(float(curve.x_L[i]) for i in known)]
    ys = [0.0, *(float(levels[i].value or 0.0) for i in known)]
    better = _width_above(xs, ys, ["", *labels], end)
    ratios = [curve.ratios[i] for i in known]
    return Phases(better, end - better, last - end, tuple(zip(ratios, labels, strict=True)))


def _labels(levels: Sequence[Estimate], delta: float) -> list[str]:
    """One word per level."""
    tests = [p_value(e) for e in levels]
    adjusted = holm([1.0 if p is None else p for p in tests])
    return [_label(e, p <= 0.05, delta) for e, p in zip(levels, adjusted, strict=True)]


def _label(level: Estimate, refused: bool, delta: float) -> str:
    """`as good` takes two one-sided 5 % tests against ± delta (Schuirmann 1987)."""
    value = level.value or 0.0
    if refused:
        return "better" if value > 0 else "worse"
    if level.standard_error is None or level.df is None:
        return "undecided"
    half = float(stats.t.ppf(0.95, level.df)) * level.standard_error
    return "as good" if abs(value) + half < delta else "undecided"


def _width_above(
    xs: Sequence[float], ys: Sequence[float], labels: Sequence[str], end: float
) -> float:
    """Length, up to `end`, of the stretches above 0 that hold a surely better level."""
    width, start, sure = 0.0, 0.0, False
    for i in range(1, len(xs)):
        rises, falls = ys[i - 1] <= 0 < ys[i], ys[i - 1] > 0 >= ys[i]
        zero = xs[i - 1] - ys[i - 1] * (xs[i] - xs[i - 1]) / (ys[i] - ys[i - 1] or 1.0)
        if rises:
            start, sure = zero, False
        sure |= labels[i] == "better"
        if sure and (falls or (i == len(xs) - 1 and ys[i] > 0)):
            stop = zero if falls else xs[i]
            width += max(min(stop, end) - min(start, end), 0.0)
            sure = False
    return width


def no_phases(reason: str) -> Phases:
    """The answer where phases cannot be told apart."""
    return Phases(None, None, None, (), reason)
