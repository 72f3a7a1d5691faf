"""Exploratory: do the curves of several sizes fall onto one when x is rescaled by size?

Finite-size-style, d(x; N) = f((x - center) · N^exponent): an exponent above 0 says that the fall
is sharper in larger models. So few sizes and so short a range prove no scaling; the quality is
therefore shown beside that with the size labels permuted.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigtickets.analysis.statistics.curves import Curve
from bigtickets.analysis.statistics.estimates import Array
from bigtickets.analysis.statistics.levels import level_means

CENTERS = 25
EXPONENTS = np.linspace(-1.0, 1.0, 41)
DEGREE = 4
MOST = 120


@dataclass(frozen=True)
class DataCollapse:
    """Best common rescaling of the curves. Exploratory, whatever its p-value."""

    exploratory: bool
    exponent: float | None
    """Of N relative to the sizes' geometric mean; positive: sharper with size."""
    center: float | None
    quality: float | None
    """Residual variance about the common curve / variance of the points; 0 is a full collapse."""
    quality_unscaled: float | None
    """The same at exponent 0."""
    null_quality: float | None
    """Median quality with the size labels permuted over the curves."""
    p_value: float | None
    """Share of label permutations with a quality at least as good."""
    sizes: int
    curves: int
    reason: str | None = None


def data_collapse(curves: Sequence[Curve], seed: int = 0) -> DataCollapse:
    """Search center and exponent for the smallest scatter about one quartic polynomial.

    One curve per model, of one task, best of `value="rescaled"`. Three sizes at least.
    """
    known = [c for c in curves if len(level_means(c)[0]) > 2]
    sizes = sorted({c.parameters for c in known})
    if len(sizes) < 3 or len({c.task for c in known}) > 1:
        reason = "fewer than three sizes" if len(sizes) < 3 else "curves of several tasks"
        return DataCollapse(
            True, None, None, None, None, None, None, len(sizes), len(known), reason
        )
    points = [level_means(c) for c in known]
    log_C = np.log([c.parameters for c in known])
    log_C -= log_C.mean()
    best, center, exponent, unscaled = _search(points, log_C)
    null = np.array([_search(points, order)[0] for order in _orders(log_C, seed)])
    return DataCollapse(
        exploratory=True,
        exponent=exponent,
        center=center,
        quality=best,
        quality_unscaled=unscaled,
        null_quality=float(np.median(null)),
        p_value=float((np.count_nonzero(null <= best + 1e-12) + 1) / (len(null) + 1)),
        sizes=len(sizes),
        curves=len(known),
    )


def _orders(log_C: Array, seed: int) -> list[Array]:
    """Other orders of the sizes: all of them when few, else a random sample."""
    if math.factorial(len(log_C)) <= MOST:
        return [np.array(order) for order in itertools.permutations(log_C)][1:]
    rng = np.random.default_rng([seed, 9])
    return [rng.permutation(log_C) for _ in range(MOST)]


def _search(
    points: Sequence[tuple[Array, Array]], log_C: Array
) -> tuple[float, float, float, float]:
    """Best quality, its center and exponent, and the quality at exponent 0."""
    x_N = np.concatenate([x for x, _ in points])
    y_N = np.concatenate([y for _, y in points])
    size_N = np.repeat(log_C, [len(x) for x, _ in points])
    center_G, exponent_G = (
        g.ravel() for g in np.meshgrid(np.linspace(x_N.min(), x_N.max(), CENTERS), EXPONENTS)
    )
    u_GN = (x_N - center_G[:, None]) * np.exp(exponent_G[:, None] * size_N)
    u_GN = u_GN / np.abs(u_GN).max(1, keepdims=True)
    q_GNP, _ = np.linalg.qr(np.stack([u_GN**p for p in range(DEGREE + 1)], axis=-1))
    explained_G = ((np.swapaxes(q_GNP, 1, 2) @ y_N) ** 2).sum(1)
    total = float(((y_N - y_N.mean()) ** 2).sum())
    quality_G = ((y_N**2).sum() - explained_G) / max(total, 1e-300)
    best = int(quality_G.argmin())
    unscaled = float(quality_G[np.abs(exponent_G) < 1e-9].min())
    return float(quality_G[best]), float(center_G[best]), float(exponent_G[best]), unscaled
