"""Splits, permutations and bootstraps over the few seeds that there are, vectorised.

With five seeds a percentile bootstrap is too narrow: the resampled spread is smaller by (S-1)/S,
and normal quantiles stand where Student's belong. Nothing here relies on it. Seeds are drawn by a
Gaussian multiplier bootstrap, which has exactly the sample covariance, and studentised; plain
resampling over tasks is widened to what Student's t asks for.
"""

import itertools
import math
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bigtickets.analysis.statistics.estimates import Array

Mask = NDArray[np.bool_]


def half_splits(seeds: int, seed: int, most: int = 252) -> Mask:
    """Halves of the seeds on which a level is chosen (K, S); the rest is for the estimate.

    All of them up to 10 seeds (252); else `most` random ones, in complementary pairs where S is
    even. For an odd S the choice gets the larger part.
    """
    half = (seeds + 1) // 2
    if math.comb(seeds, half) <= most:
        chosen = itertools.combinations(range(seeds), half)
        return np.array([[s in some for s in range(seeds)] for some in chosen])
    rng = np.random.default_rng([seed, 3])
    first = rng.random((most // 2, seeds)).argsort(-1).argsort(-1) < half
    second = ~first if seeds % 2 == 0 else np.roll(first, 1, axis=1)
    return np.concatenate([first, second])


def multiplier_draws(difference_SL: Array, draws: int, seed: int) -> Array:
    """Gaussian multiplier bootstrap of curves by seed (B, S, L).

    d*_s = mean + sum_t z_st (d_t - mean) / sqrt(n - 1) with standard normal z has exactly the
    sample's mean and covariance over levels, also with few seeds, and no draw is degenerate.
    Missing cells stay missing.
    """
    rng = np.random.default_rng([seed, 4])
    known = np.isfinite(difference_SL)
    count_L = known.sum(0)
    mean_L = column_means(difference_SL)
    residual_SL = np.where(known, difference_SL - mean_L, 0.0) / np.sqrt(np.maximum(count_L - 1, 1))
    z_BSS = rng.standard_normal((draws, len(difference_SL), len(difference_SL)))
    return np.where(known, mean_L + z_BSS @ residual_SL, np.nan)


def permuted_within_rows(values_SL: Array, draws: int, seed: int) -> Array:
    """Independent permutations of the known values of every row (P, S, L); NaN stays in place."""
    rng = np.random.default_rng([seed, 5])
    out = np.full((draws, *values_SL.shape), np.nan)
    for row, values_L in enumerate(values_SL):
        known = np.flatnonzero(np.isfinite(values_L))
        order = rng.random((draws, len(known))).argsort(-1)
        out[:, row, known] = values_L[known][order]
    return out


def column_means(values: Array, axis: int = -2) -> Array:
    """Mean over an axis without the NaN values; NaN where nothing is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)


def expanded_interval(draws_B: Array, units: int, confidence: float) -> tuple[float, float]:
    """Percentile interval widened for a small number of resampled units.

    Hesterberg (2015), "What Teachers Should Know About the Bootstrap", section 3.3: the tail
    Φ(-sqrt(n/(n-1)) t(n-1)) in place of α/2 gives, for a mean, about the width of Student's t.
    """
    t = stats.t.ppf((1 + confidence) / 2, units - 1)
    tail = float(stats.norm.cdf(-math.sqrt(units / (units - 1)) * t))
    low, high = np.quantile(draws_B, [tail, 1 - tail])
    return float(low), float(high)


def permutation_p(null_P: Array, observed: float) -> float:
    """(1 + number of permutations at least as large) / (1 + all): never 0, never too small."""
    return float((1 + np.count_nonzero(null_P >= observed - 1e-12)) / (1 + len(null_P)))
