"""Is there a break, or only a smooth curve; and where?"""

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
    segmented,
    simulated,
)
from bigtickets.analysis.statistics.resampling import permutation_p

DRAWS = 400
LEAST_LEVELS = 7
METHOD = "segmented least squares, bootstrapped likelihood-ratio region"


@dataclass(frozen=True)
class Break:
    """Segmented regression of the level means (dense model included) against smooth shapes."""

    at: Estimate
    """Where the curve bends down."""
    slope_before: float | None
    """Slope per unit x up to the break."""
    slope_after: float | None
    supported: bool
    """No smooth alternative explains the curve: every p-value below is at most 0.05."""
    p_value: float | None
    """Largest p-value over the alternatives."""
    alternatives: tuple[tuple[str, float, float | None], ...]
    """(shape, p-value of the break against it, its AICc)."""
    aicc: float | None
    """AICc of the segmented shape."""
    best: str | None
    """Shape with the lowest AICc."""
    levels_used: int
    reason: str | None = None


def find_break(
    x_L: Array,
    curve_L: Array,
    confidence: float = 0.95,
    seed: int = 0,
    spread_L: Array | None = None,
) -> Break:
    """Fit one break to level means and test it against a line, a parabola and a logistic fall.

    Against each smooth shape the ratio RSS_smooth / RSS_segmented is compared with its
    distribution in curves drawn from the fitted smooth shape. A break counts as supported only
    if all of them are refused (an intersection-union test, Berger 1982), so a truth in any of
    them gives a false break at most 5 % of the time. A truth that is smooth in some other way,
    but bends within a step of the grid, is a break as far as these levels can tell.
    `x_L`, `curve_L`: ascending, finite, the dense model first, seven levels at least; `spread_L`:
    relative standard deviations of the levels, equal if not given.
    """
    levels = len(x_L)
    if levels < LEAST_LEVELS:
        return no_break(f"{levels} levels: a break needs at least {LEAST_LEVELS}", levels)
    spread_L = np.ones(levels) if spread_L is None else spread_L
    bent, scaled_L = segmented(x_L, spread_L), curve_L / spread_L
    squares_G = bent.squares(scaled_L[None])[:, 0]
    if np.ptp(curve_L) <= 1e-12 or np.ptp(squares_G) <= 1e-9 * squares_G.max():
        return no_break("the curve bends nowhere down", levels)
    tests = _against_smooth(x_L, spread_L, scaled_L, bent, seed)
    fitted_L = spread_L * bent.fitted(int(squares_G.argmin()), scaled_L)
    slopes = np.diff(fitted_L) / np.diff(x_L)  # the break has two levels on either side
    p_value = max(p for _, p, _ in tests)
    own = aicc_of(bent, scaled_L)
    return Break(
        at=_place(bent, squares_G, scaled_L, confidence, seed),
        slope_before=float(slopes[0]),
        slope_after=float(slopes[-1]),
        supported=p_value <= 0.05,
        p_value=p_value,
        alternatives=tests,
        aicc=own,
        best=_lowest({name: value for name, _, value in tests} | {bent.name: own}),
        levels_used=levels,
    )


def _against_smooth(
    x_L: Array, spread_L: Array, scaled_L: Array, bent: Shape, seed: int
) -> tuple[tuple[str, float, float | None], ...]:
    """(name, p-value of the break, AICc) of each smooth shape."""
    smooth = (
        polynomial(x_L, spread_L, 1, "linear"),
        polynomial(x_L, spread_L, 2, "quadratic"),
        refined(logistic(x_L, spread_L), x_L, spread_L, scaled_L),
    )
    return tuple(
        (one.name, _p_value(one, bent, scaled_L, seed), aicc_of(one, scaled_L)) for one in smooth
    )


def no_break(reason: str, levels: int) -> Break:
    """The answer where no break can be looked for."""
    nothing = unavailable(reason)
    return Break(nothing, None, None, False, None, (), None, None, levels, reason)


def _lowest(criteria: dict[str, float | None]) -> str | None:
    """Name of the lowest criterion."""
    known = {name: value for name, value in criteria.items() if value is not None}
    return min(known, key=lambda name: known[name]) if known else None


def _p_value(smooth: Shape, bent: Shape, curve_L: Array, seed: int) -> float:
    """Parametric bootstrap of RSS_smooth / RSS_segmented under the smooth shape."""
    squares_G = smooth.squares(curve_L[None])[:, 0]
    observed = squares_G.min() / bent.least_squares(curve_L[None])[0]
    draw_BL = simulated(smooth, int(squares_G.argmin()), curve_L, DRAWS, seed)
    ratio_B = smooth.least_squares(draw_BL) / bent.least_squares(draw_BL)
    return permutation_p(ratio_B, float(observed))


def _place(bent: Shape, squares_G: Array, curve_L: Array, confidence: float, seed: int) -> Estimate:
    """The break with its interval; an end at the edge of where breaks are looked for is open."""
    tau_G = bent.grid_GQ[:, 0]
    inside = region(bent, curve_L, DRAWS, confidence, seed)[:, 0]
    low, high = float(inside.min()), float(inside.max())
    step = float(tau_G[1] - tau_G[0])
    open_low, open_high = low <= tau_G[0] + step / 2, high >= tau_G[-1] - step / 2
    return Estimate(
        value=float(tau_G[squares_G.argmin()]),
        low=None if open_low else low - step,
        high=None if open_high else high + step,
        confidence=confidence,
        method=METHOD,
        reason="the interval reaches the edge of the levels" if open_low or open_high else None,
    )
