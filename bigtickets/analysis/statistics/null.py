"""What noise alone gives: the null of the naive gain."""

import math

import numpy as np
from scipy import stats

from bigtickets.analysis.statistics.curves import Curve
from bigtickets.analysis.statistics.resampling import (
    Mask,
    column_means,
    permutation_p,
    permuted_within_rows,
)

PERMUTATIONS = 2000


def null_gain(curve: Curve, seed: int = 0) -> tuple[float | None, float | None, float | None]:
    """Naive gain under noise alone: its mean, its 95 % quantile, and the p-value.

    The residuals from the level means are permuted over levels within each seed, which keeps
    the seeds' pairing and the noise but no level's effect. Levels surely worse than the dense
    model (one-sided t at 5 %) could not be the best by noise and take no part, the idea of
    Hansen's (2005) test for superior predictive ability; without it a collapsed level's wild
    noise would drown any gain. The p-value compares gains over their residual spread, so that
    few seeds do not make it too small.
    """
    value_SL = curve.value_SL[:, contenders(curve)]
    value_SL = value_SL[np.isfinite(value_SL).sum(1) > 1]
    seeds, levels = value_SL.shape
    if curve.reason is not None or seeds < 2 or levels < 2:
        return None, None, None
    value_SL = value_SL - column_means(value_SL, axis=1)[:, None]
    residual_SL = value_SL - column_means(value_SL)
    mean_PL = column_means(permuted_within_rows(residual_SL, PERMUTATIONS, seed))
    gain_P = np.nanmax(mean_PL[:, 1:] - mean_PL[:, :1], axis=1)
    if not np.isfinite(gain_P).all():
        return None, None, None
    total = float(np.nansum(residual_SL**2))
    spread_P = np.sqrt(np.maximum(total - seeds * np.nansum(mean_PL**2, axis=1), 1e-300))
    observed = float(np.nanmax(curve.mean_L)) / math.sqrt(max(total, 1e-300))
    null_P = gain_P * math.sqrt(seeds / (seeds - 1))
    p_value = permutation_p(gain_P / spread_P, observed)
    return float(null_P.mean()), float(np.quantile(null_P, 0.95)), p_value


def contenders(curve: Curve) -> Mask:
    """Columns of `value_SL` that could be the best: the dense one and all not surely worse."""
    mean_L, error_L = curve.mean_L, curve.standard_error_L
    seeds = int(curve.usable_S.sum())
    if seeds < 2:
        return np.r_[True, np.isfinite(mean_L)]
    threshold = stats.t.ppf(0.05, seeds - 1)
    with np.errstate(invalid="ignore"):
        return np.r_[True, np.isfinite(mean_L) & ~(mean_L < threshold * error_L)]
