"""Where, how steeply and how abruptly a curve falls. "No transition found" is a result."""

from dataclasses import dataclass, replace

import numpy as np

from bigtickets.analysis.statistics.breaks import Break, find_break, no_break
from bigtickets.analysis.statistics.curves import Curve, Value
from bigtickets.analysis.statistics.estimates import Estimate, unavailable
from bigtickets.analysis.statistics.examples import Examples
from bigtickets.analysis.statistics.falls import LogisticFall, fall, no_fall
from bigtickets.analysis.statistics.gain import named
from bigtickets.analysis.statistics.levels import (
    above_floor,
    level_estimates,
    level_means,
    level_spread,
)
from bigtickets.analysis.statistics.phases import (
    Phases,
    collapse_point,
    no_phases,
    phases,
    pooled_deviation,
    slope_after,
)

POINT = 0.01


@dataclass(frozen=True)
class Transition:
    """The fall of one curve, in x (fraction removed) and the curve's units."""

    model: str
    parameters: int
    task: str
    data_fraction: float
    kind: str
    value: Value
    delta_sd: float | None
    """One pooled standard deviation over seeds."""
    collapse_sd: Estimate
    """First x with d(x) < -delta_sd."""
    collapse_point: Estimate
    """First x with d(x) < -0.01; not for the loss, where a point means nothing."""
    slope: Estimate
    """Slope of d(x) past `collapse_sd`, per unit x."""
    phases: Phases
    logistic: LogisticFall
    segmented: Break
    found: bool
    """A downward break that no smooth shape explains."""
    verdict: str
    """The finding in one sentence."""
    seeds: int
    levels: int
    degenerate: int
    missing: int


def transition(
    curve: Curve, examples: Examples | None = None, confidence: float = 0.95, seed: int = 0
) -> Transition:
    """All that is asked about one curve's fall.

    `examples` widen the levels' intervals (and so the collapse point's) by the evaluation
    examples; the shapes are fitted to level means, whose scatter holds that noise already.
    """
    levels = level_estimates(curve, examples, confidence, seed)
    delta = pooled_deviation(curve) if curve.reason is None else None
    collapse = collapse_point(curve.x_L, levels, delta, confidence)
    point = None if curve.value == "loss" else POINT
    in_points = collapse_point(curve.x_L, levels, point, confidence)
    if curve.value == "loss":
        in_points = unavailable("a point has no meaning for the loss", confidence)
    told = no_phases(collapse.reason or "") if delta is None else None
    bent = _break(curve, confidence, seed)
    return Transition(
        **named(curve),
        delta_sd=delta,
        collapse_sd=collapse,
        collapse_point=in_points,
        slope=slope_after(curve, collapse, confidence),
        phases=told or phases(curve, collapse, levels, delta or 0.0),
        logistic=_fall(curve, confidence, seed),
        segmented=bent,
        found=bent.supported,
        verdict=verdict(collapse, bent),
        seeds=int(curve.usable_S.sum()),
        levels=sum(e.value is not None for e in levels),
    )


def on_axis(at: Estimate, curve: Curve, other: Curve) -> Estimate:
    """A collapse point of `curve`, told on the axis of `other`, the same trials on another axis.

    Exact: the collapse is found on straight lines between the levels, on either axis.
    """
    x_L, other_L = level_means(curve)[0], level_means(other)[0]

    def moved(x: float | None) -> float | None:
        return None if x is None else float(np.interp(x, x_L, other_L))

    return replace(at, value=moved(at.value), low=moved(at.low), high=moved(at.high))


def _break(curve: Curve, confidence: float, seed: int) -> Break:
    if curve.reason is not None:
        return no_break(curve.reason, 0)
    x_L, curve_L = above_floor(curve)
    return find_break(x_L, curve_L, confidence, seed, level_spread(curve)[: len(x_L)])


def _fall(curve: Curve, confidence: float, seed: int) -> LogisticFall:
    if curve.reason is not None:
        return no_fall(curve.reason)
    return fall(*level_means(curve), confidence, seed, level_spread(curve))


def verdict(collapse: Estimate, bent: Break) -> str:
    """One sentence: a break, a gradual decline, or nothing."""
    sure = collapse.value is not None and collapse.high is not None
    if bent.supported:
        tail = "" if sure else ", but no level is surely worse by more than delta"
        return f"a break at x = {bent.at.value:.2f} that no smooth curve explains{tail}"
    unknown = f" ({bent.reason})" if bent.reason is not None else ""
    if sure:
        return (
            f"no transition found{unknown}: a gradual decline, worse than the dense model "
            f"from x = {collapse.value:.2f}"
        )
    return f"no transition found{unknown}: no level is surely worse than the dense model"
