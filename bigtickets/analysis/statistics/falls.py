"""The logistic fall of a curve: its midpoint and its 90-10 width."""

import math
from dataclasses import dataclass

import numpy as np

from bigtickets.analysis.statistics.estimates import Array, Estimate, unavailable
from bigtickets.analysis.statistics.fits import (
    Shape,
    aicc_of,
    logistic,
    polynomial,
    refined,
    region,
)

DRAWS = 400
LEAST_LEVELS = 7
WIDTH = 2 * math.log(9)
METHOD = "logistic least squares, bootstrapped likelihood-ratio region"


@dataclass(frozen=True)
class LogisticFall:
    """bottom + (top - bottom) / (1 + exp((x - midpoint) / s)), fitted to level means."""

    midpoint: Estimate
    width: Estimate
    """From 90 % to 10 % of the fall, 2 ln(9) s, in x; an upper end is open where the levels do
    not show how deep the fall goes."""
    top: float | None
    bottom: float | None
    """Where the fall ends; extrapolated when the midpoint's interval is open."""
    reason: str | None = None


def fall(
    x_L: Array,
    curve_L: Array,
    confidence: float = 0.95,
    seed: int = 0,
    spread_L: Array | None = None,
) -> LogisticFall:
    """Fit a logistic fall; no fall is reported where a constant does as well by AICc.

    `spread_L`: relative standard deviations of the levels; equal if not given.
    """
    levels = len(x_L)
    if levels < LEAST_LEVELS:
        return no_fall(f"{levels} levels: a logistic fall needs at least {LEAST_LEVELS}")
    spread_L = np.ones(levels) if spread_L is None else spread_L
    scaled_L = curve_L / spread_L
    curved = refined(logistic(x_L, spread_L), x_L, spread_L, scaled_L)
    if np.ptp(curve_L) <= 1e-12 or not _beats_constant(curved, x_L, spread_L, scaled_L):
        return no_fall("no fall: a constant explains the curve as well")
    best = int(curved.squares(scaled_L[None])[:, 0].argmin())
    inside_RQ = region(curved, scaled_L, DRAWS, confidence, seed)
    middle, scale = (float(p) for p in curved.grid_GQ[best])
    top, bottom = _ends(x_L, spread_L * curved.fitted(best, scaled_L), middle, scale)
    return LogisticFall(
        _midpoint(middle, inside_RQ, x_L, confidence),
        _width(scale, inside_RQ, x_L, confidence),
        top,
        bottom,
    )


def _beats_constant(curved: Shape, x_L: Array, spread_L: Array, scaled_L: Array) -> bool:
    """Whether the fall has the lower AICc."""
    flat = polynomial(x_L, spread_L, 0, "constant")
    bent, plain = (aicc_of(shape, scaled_L) for shape in (curved, flat))
    return bent is not None and plain is not None and bent < plain


def no_fall(reason: str) -> LogisticFall:
    """The answer where there is no fall to measure."""
    return LogisticFall(unavailable(reason), unavailable(reason), None, None, reason)


def _ends(x_L: Array, fitted_L: Array, middle: float, scale: float) -> tuple[float, float]:
    """Top and bottom of the fitted fall."""
    step_L = 1 / (1 + np.exp(np.clip((x_L - middle) / scale, -500, 500)))
    size = float(np.ptp(fitted_L)) / max(float(np.ptp(step_L)), 1e-12)
    bottom = float(fitted_L[0] - size * step_L[0])
    return bottom + size, bottom


def _midpoint(middle: float, inside_RQ: Array, x_L: Array, confidence: float) -> Estimate:
    """The midpoint, open where it may lie beyond the levels."""
    low, high = float(inside_RQ[:, 0].min()), float(inside_RQ[:, 0].max())
    beyond = high > x_L[-1]
    return Estimate(
        middle,
        low,
        None if beyond else high,
        confidence=confidence,
        method=METHOD,
        reason="half of the fall may lie beyond the last level" if beyond else None,
    )


def _width(scale: float, inside_RQ: Array, x_L: Array, confidence: float) -> Estimate:
    """The 90-10 width; from 0 where the levels are too coarse to see one."""
    span = float(x_L[-1] - x_L[0])
    middles, scales = inside_RQ[:, 0], inside_RQ[:, 1]
    if scale > 0.99 * span:
        return unavailable("the fall is wider than the measured range", confidence)
    unresolved = scales.min() < 0.0101 * span
    unbounded = scales.max() > 0.99 * span or middles.max() > x_L[-1]
    return Estimate(
        WIDTH * scale,
        0.0 if unresolved else WIDTH * float(scales.min()),
        None if unbounded else WIDTH * float(scales.max()),
        confidence=confidence,
        method=METHOD,
        reason="the fall may go on beyond the last level" if unbounded else None,
    )
