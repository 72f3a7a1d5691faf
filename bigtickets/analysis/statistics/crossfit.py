"""Choosing a level on some seeds and estimating its gain on the others, with an interval."""

import math

import numpy as np

from bigtickets.analysis.statistics.curves import Curve
from bigtickets.analysis.statistics.estimates import (
    Array,
    Estimate,
    joined,
    mean_interval,
    t_interval,
    unavailable,
)
from bigtickets.analysis.statistics.examples import Examples, shared_variance
from bigtickets.analysis.statistics.levels import example_scores, scores_under
from bigtickets.analysis.statistics.resampling import (
    Mask,
    column_means,
    half_splits,
    multiplier_draws,
)

BOOTSTRAPS = 400
HALVES = 8
Shares = tuple[tuple[float, float], ...]


def debiased_gain(
    curve: Curve, examples: Examples | None, confidence: float, seed: int
) -> tuple[Estimate, Shares, int]:
    """Estimate, shares of the levels chosen, number of splits.

    G = mean over splits of [mean over the held-out seeds of d(s, level chosen on the others)]
      = mean over seeds of g_s, seed s's mean over the splits that hold it out.
    The g_s share splits, so their plain standard error is some 15-20 % too small. A Gaussian
    multiplier bootstrap measures by how much, and Student's t with S-1 degrees of freedom is
    used on the corrected one. Simulations: benchmarks/statistics_truth.py.
    """
    usable_S = curve.usable_S
    if curve.reason is not None or usable_S.sum() < 2:
        reason = curve.reason or "fewer than two seeds with a dense and a pruned trial"
        return unavailable(reason, confidence), (), 0
    difference_SL = curve.difference_SL[usable_S]
    splits_KS = half_splits(len(difference_SL), seed)
    choose_HSL, estimate_HSL = _halves(curve, examples, usable_S, seed)
    held_HS, share_HSL = crossfit(choose_HSL, estimate_HSL, splits_KS)
    held_S, share_SL = column_means(held_HS), share_HSL.mean(0)
    plain = mean_interval(held_S, confidence)
    if plain.value is None or plain.standard_error is None:
        return plain, _shares(curve, share_SL), len(splits_KS)
    wider = plain.standard_error * _inflation(difference_SL, splits_KS, seed)
    extra = _example_variance(curve, examples, usable_S, share_SL, seed)
    error, df = joined(wider**2, int(np.isfinite(held_S).sum()) - 1, extra)
    estimate = t_interval(plain.value, error, df, confidence, "t, bootstrapped standard error")
    return estimate, _shares(curve, share_SL), len(splits_KS) * len(choose_HSL)


def crossfit(choose_BSL: Array, estimate_BSL: Array, splits_KS: Mask) -> tuple[Array, Array]:
    """Choose a level on each split's seeds, read it off on the others.

    Returns each seed's mean over the splits that hold it out (B, S), NaN where there is none,
    and how often each level was read off for each seed (B, S, L).
    """
    known = np.isfinite(choose_BSL)
    choosing_KS = splits_KS.astype(np.float64)
    count_BKL = choosing_KS @ known
    total_BKL = choosing_KS @ np.where(known, choose_BSL, 0.0)
    mean_BKL = np.where(count_BKL > 0, total_BKL / np.maximum(count_BKL, 1), -np.inf)
    picked_BKL = mean_BKL.argmax(-1)[..., None] == np.arange(choose_BSL.shape[-1])
    times_BSL = (~splits_KS).T.astype(np.float64) @ picked_BKL
    times_BSL = np.where(np.isfinite(estimate_BSL), times_BSL, 0.0)
    total_BS = (times_BSL * np.where(times_BSL > 0, estimate_BSL, 0.0)).sum(-1)
    count_BS = times_BSL.sum(-1)
    held_BS = np.where(count_BS > 0, total_BS / np.maximum(count_BS, 1), np.nan)
    return held_BS, times_BSL / np.maximum(count_BS, 1)[..., None]


def _halves(
    curve: Curve, examples: Examples | None, usable_S: Mask, seed: int
) -> tuple[Array, Array]:
    """Differences to choose by and to estimate with (H, S, L).

    Without examples both are the differences; with them, those on a half of the examples and on
    the other half.
    """
    if examples is None:
        difference_HSL = curve.difference_SL[usable_S][None]
        return difference_HSL, difference_HSL
    score_SLH = scores_under(curve, examples, examples.half_weights(HALVES, seed))[usable_S]
    half_HSL = np.moveaxis(score_SLH[:, 1:] - score_SLH[:, :1], -1, 0)
    other = np.arange(len(half_HSL)) ^ 1
    return half_HSL, half_HSL[other]


def _inflation(difference_SL: Array, splits_KS: Mask, seed: int) -> float:
    """True spread of the cross-fitted mean over its plain standard error, by bootstrap."""
    draw_BSL = multiplier_draws(difference_SL, BOOTSTRAPS, seed)
    held_BS, _ = crossfit(draw_BSL, draw_BSL, splits_KS)
    held_BS = held_BS[:, np.isfinite(held_BS).all(0)]
    seeds = held_BS.shape[1]
    plain = math.sqrt(held_BS.var(axis=1, ddof=1).mean() / seeds) if seeds > 1 else 0.0
    return max(float(held_BS.mean(1).std(ddof=1)) / plain, 1.0) if plain > 0 else 1.0


def _example_variance(
    curve: Curve, examples: Examples | None, usable_S: Mask, share_SL: Array, seed: int
) -> float:
    """Variance of the gain that comes from the shared examples, at the levels chosen."""
    score_SLB = example_scores(curve, examples, seed, BOOTSTRAPS)
    if score_SLB is None:
        return 0.0
    score_SLB = score_SLB[usable_S]
    difference_SLB = score_SLB[:, 1:] - score_SLB[:, :1]
    chosen_SLB = np.where(share_SL[..., None] > 0, difference_SLB, 0.0)
    return shared_variance((share_SL[..., None] * chosen_SLB).sum(1))


def _shares(curve: Curve, share_SL: Array) -> Shares:
    """(ratio, share of the splits that chose it), of those ever chosen."""
    share_L = share_SL.mean(0) / max(float(share_SL.mean(0).sum()), 1e-300)
    pairs = zip(curve.ratios, share_L, strict=True)
    return tuple((ratio, float(share)) for ratio, share in pairs if share > 0)
