"""Least squares of the curve shapes that a transition is judged by.

Every shape is linear in all but one or two parameters, so those are searched on a fine grid and
the rest is solved exactly (variable projection, Golub and Pereyra 1973): one matrix product fits
a thousand bootstrap curves at every grid point at once, without starting values or iterations
that stop in the wrong place. Shapes are fitted to level means, whose scatter about a shape holds
the seeds' noise and also what a level's ticket has of its own. Collapsed levels scatter more, so
everything here is in units of each level's spread (`spread_L`): curves come divided by it, which
makes least squares weighted, and go back by multiplying.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from bigtickets.analysis.statistics.estimates import Array

TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Shape:
    """One family on given levels: a common linear part and at most one more vector.

    curve = common part + c * bend, where the bend depends on a grid point and `sign` * c >= 0.
    All vectors are orthonormal, so RSS = |rest|² - (rest . bend)² with the rest left by the
    common part, and the bend counts only where its coefficient has the right sign.
    """

    name: str
    common_PL: Array
    bend_GL: Array
    """One row per grid point; no rows: the common part is the whole family."""
    grid_GQ: Array
    """Non-linear parameters at each grid point."""
    sign: int = 1

    @property
    def parameters(self) -> int:
        """Linear and non-linear parameters together."""
        return len(self.common_PL) + (1 + self.grid_GQ.shape[1]) * bool(len(self.bend_GL))

    def rest(self, curve_BL: Array) -> Array:
        """What the common part leaves (B, L)."""
        return curve_BL - curve_BL @ self.common_PL.T @ self.common_PL

    def squares(self, curve_BL: Array) -> Array:
        """Residual sum of squares at every grid point (G, B); G = 1 without a bend."""
        rest_BL = self.rest(curve_BL)
        total_B = (rest_BL**2).sum(-1)
        if not len(self.bend_GL):
            return np.maximum(total_B, TINY)[None]
        along_GB = np.maximum(self.sign * self.bend_GL @ rest_BL.T, 0.0)
        return np.maximum(total_B - along_GB**2, TINY)

    def least_squares(self, curve_BL: Array) -> Array:
        """Smallest residual sum of squares over the grid (B,)."""
        rest_BL = self.rest(curve_BL)
        total_B = (rest_BL**2).sum(-1)
        if not len(self.bend_GL):
            return np.maximum(total_B, TINY)
        along_B = (self.bend_GL @ (self.sign * rest_BL.T)).max(0)
        return np.maximum(total_B - np.maximum(along_B, 0.0) ** 2, TINY)

    def at(self, point: int) -> "Shape":
        """The family with its non-linear parameters fixed."""
        return replace(self, bend_GL=self.bend_GL[[point]], grid_GQ=self.grid_GQ[[point]])

    def fitted(self, point: int, curve_L: Array) -> Array:
        """The least-squares curve at one grid point (L,)."""
        rest_L = self.rest(curve_L[None])[0]
        if not len(self.bend_GL):
            return curve_L - rest_L
        bend_L = self.bend_GL[point]
        size = self.sign * max(self.sign * float(bend_L @ rest_L), 0.0)
        return curve_L - rest_L + size * bend_L


def polynomial(x_L: Array, spread_L: Array, degree: int, name: str) -> Shape:
    """Powers of x up to `degree`."""
    nothing = np.zeros((0, len(x_L)))
    return Shape(name, _powers(x_L, spread_L, degree), nothing, np.zeros((0, 0)))


def segmented(x_L: Array, spread_L: Array, points: int = 401) -> Shape:
    """a + b x + c max(x - tau, 0) with c <= 0: two lines that bend down at tau.

    tau has at least two levels on either side (Muggeo 2003 has the model).
    """
    tau_G = np.linspace(x_L[1], x_L[-2], points)
    bend_GL = np.maximum(x_L - tau_G[:, None], 0.0) / spread_L
    line_PL = _powers(x_L, spread_L, 1)
    return Shape("segmented", line_PL, _beyond(line_PL, bend_GL), tau_G[:, None], sign=-1)


def logistic(x_L: Array, spread_L: Array, middles: int = 91, scales: int = 21) -> Shape:
    """bottom + fall / (1 + exp((x - m) / s)) with fall >= 0; its 90-10 width is 2 ln(9) s.

    m runs from the first level to half a range beyond the last, s from 1 % of the range to all.
    """
    span = x_L[-1] - x_L[0]
    middle = np.linspace(x_L[0], x_L[-1] + span / 2, middles)
    return _logistic(x_L, spread_L, middle, span * np.geomspace(0.01, 1.0, scales))


def refined(coarse: Shape, x_L: Array, spread_L: Array, curve_L: Array) -> Shape:
    """A logistic family with a ten times finer grid around the best point of this curve.

    Precise curves fix the midpoint better than any affordable grid over the whole range.
    """
    middle, scale = coarse.grid_GQ[int(coarse.squares(curve_L[None])[:, 0].argmin())]
    span = x_L[-1] - x_L[0]
    middles = middle + span * np.linspace(-0.025, 0.025, 41)
    scales = np.clip(scale * np.geomspace(1 / 1.5, 1.5, 21), 0.01 * span, span)
    fine = _logistic(x_L, spread_L, middles, scales)
    return replace(
        coarse,
        bend_GL=np.concatenate([coarse.bend_GL, fine.bend_GL]),
        grid_GQ=np.concatenate([coarse.grid_GQ, fine.grid_GQ]),
    )


def _logistic(x_L: Array, spread_L: Array, middle: Array, scale: Array) -> Shape:
    """The logistic family on the product of two grids."""
    grid_GQ = np.stack(np.meshgrid(middle, scale, indexing="ij"), -1).reshape(-1, 2)
    fall_GL = 1 / (1 + np.exp(np.clip((x_L - grid_GQ[:, :1]) / grid_GQ[:, 1:], -500, 500)))
    flat_PL = _powers(x_L, spread_L, 0)
    return Shape("logistic", flat_PL, _beyond(flat_PL, fall_GL / spread_L), grid_GQ)


def _powers(x_L: Array, spread_L: Array, degree: int) -> Array:
    """Orthonormal basis of the polynomials on the levels (P, L)."""
    q_LP, _ = np.linalg.qr(np.vander(x_L, degree + 1, increasing=True) / spread_L[:, None])
    return np.ascontiguousarray(q_LP.T)


def _beyond(common_PL: Array, vector_GL: Array) -> Array:
    """What the vectors have beyond the common part, at unit length; zeros where nothing."""
    rest_GL = vector_GL - vector_GL @ common_PL.T @ common_PL
    length_G = np.sqrt((rest_GL**2).sum(-1, keepdims=True))
    return np.divide(rest_GL, length_G, out=np.zeros_like(rest_GL), where=length_G > 1e-9)


def aicc(squares: float, levels: int, parameters: int) -> float | None:
    """Akaike's criterion for small samples (Hurvich and Tsai 1989), Gaussian errors.

    n ln(RSS/n) + 2k + 2k(k+1)/(n-k-1) with k = parameters + 1 (the variance); None for n < k+2.
    """
    k = parameters + 1
    if levels - k - 1 <= 0:
        return None
    criterion = levels * math.log(max(squares, TINY) / levels) + 2 * k
    return criterion + 2 * k * (k + 1) / (levels - k - 1)


def aicc_of(fit: Shape, curve_L: Array) -> float | None:
    """AICc of a family's best fit."""
    return aicc(float(fit.least_squares(curve_L[None])[0]), len(curve_L), fit.parameters)


def region(fit: Shape, curve_L: Array, draws: int, confidence: float, seed: int) -> Array:
    """Non-linear parameters that the curve does not speak against (R, Q).

    Inverts F(p) = (RSS(p) - RSS_min) / RSS_min at the quantile that F has at the fitted
    parameters in curves drawn from the fit (Hansen 2017, "Regression Kink With an Unknown
    Threshold", for the segmented shape). Where p is a single parameter this is its interval;
    where there are two, the interval of one is its range over the region, which is a little wide.
    """
    squares_G = fit.squares(curve_L[None])[:, 0]
    best = int(squares_G.argmin())
    draw_BL = simulated(fit, best, curve_L, draws, seed)
    least_B = fit.least_squares(draw_BL)
    excess_B = (fit.at(best).least_squares(draw_BL) - least_B) / least_B
    threshold = float(np.quantile(excess_B, confidence))
    least = squares_G[best]
    return fit.grid_GQ[(squares_G - least) / least <= threshold + TINY]


def simulated(fit: Shape, point: int, curve_L: Array, draws: int, seed: int) -> Array:
    """Curves from a fit with Gaussian errors of its residual variance (B, L)."""
    mean_L = fit.fitted(point, curve_L)
    freedom = max(len(curve_L) - fit.parameters, 1)
    sigma = math.sqrt(float(((curve_L - mean_L) ** 2).sum()) / freedom)
    rng = np.random.default_rng([seed, 6])
    return mean_L + sigma * rng.standard_normal((draws, len(curve_L)))
