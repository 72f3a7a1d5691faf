"""The paired difference at each level with its interval, over seeds and evaluation examples."""

import numpy as np

from bigtickets.analysis.statistics.curves import Curve
from bigtickets.analysis.statistics.estimates import Array, Estimate, mean_interval
from bigtickets.analysis.statistics.examples import Examples, shared_variance
from bigtickets.analysis.statistics.resampling import column_means

FLOOR = 0.1
PRIOR = 2


def level_estimates(
    curve: Curve, examples: Examples | None = None, confidence: float = 0.95, seed: int = 0
) -> tuple[Estimate, ...]:
    """Student's t interval of d(x) at each level, pointwise.

    Over seeds; with the examples' scores also over the evaluation examples, which all seeds
    share: their variance joins the seeds' (see `examples.shared_variance`).
    """
    extra_L = example_variance(curve, examples, seed)
    return tuple(
        mean_interval(difference_S, confidence, extra)
        for difference_S, extra in zip(curve.difference_SL.T, extra_L, strict=True)
    )


def example_variance(curve: Curve, examples: Examples | None, seed: int, draws: int = 200) -> Array:
    """Per level, the variance of mean d(x) that the shared evaluation examples bring (L,)."""
    score_SLB = example_scores(curve, examples, seed, draws)
    if score_SLB is None:
        return np.zeros(len(curve.ratios))
    draws_LSB = np.moveaxis(score_SLB[:, 1:] - score_SLB[:, :1], 1, 0)
    return np.array([shared_variance(draws_SB) for draws_SB in draws_LSB])


def example_scores(curve: Curve, examples: Examples | None, seed: int, draws: int) -> Array | None:
    """Scores of all trials under bootstrap weights of the examples (S, L+1, B).

    None without examples, or when a trial that has a score has no examples.
    """
    if examples is None or not has_examples(curve, examples):
        return None
    return scores_under(curve, examples, examples.bootstrap_weights(draws, seed))


def has_examples(curve: Curve, examples: Examples) -> bool:
    """Whether every trial with a score has its examples."""
    scored_SL = np.isfinite(curve.value_SL)
    ids = [t for row, ok in zip(curve.trials, scored_SL, strict=True) for t in np.array(row)[ok]]
    return bool(ids) and all(trial in examples for trial in ids)


def scores_under(curve: Curve, examples: Examples, weight_RN: Array) -> Array:
    """Scores of all trials with the examples weighted, in the curve's units (S, L+1, R)."""
    score_SLR = np.full((*curve.value_SL.shape, len(weight_RN)), np.nan)
    for row, column in np.argwhere(np.isfinite(curve.value_SL)):
        trial = curve.trials[row][column]
        score_SLR[row, column] = examples.scores(str(trial), weight_RN)
    return (score_SLR - curve.offset) * curve.scale


def level_means(curve: Curve) -> tuple[Array, Array]:
    """x and mean paired difference of the levels that have one, the dense model (0, 0) first."""
    x_L, mean_L = np.r_[0.0, curve.x_L], np.r_[0.0, curve.mean_L]
    known = np.isfinite(mean_L)
    return x_L[known], mean_L[known]


def level_spread(curve: Curve) -> Array:
    """Relative standard deviation of the scores at the levels of `level_means`.

    Of the scores about level and seed means. A handful of seeds tells little about each level
    alone, so every variance is drawn towards the mean one as by `PRIOR` more seeds.
    """
    known = np.r_[True, np.isfinite(curve.mean_L)]
    value_SL = curve.value_SL[:, known]
    value_SL = value_SL - column_means(value_SL, axis=1)[:, None]
    residual_SL = value_SL - column_means(value_SL)
    freedom_L = np.maximum(np.isfinite(residual_SL).sum(0) - 1, 0)
    square_L = np.nansum(residual_SL**2, axis=0)
    pooled = square_L.sum() / max(freedom_L.sum(), 1)
    if not pooled > 0:
        return np.ones(len(square_L))
    return np.sqrt((square_L / pooled + PRIOR) / (freedom_L + PRIOR))


def above_floor(curve: Curve) -> tuple[Array, Array]:
    """`level_means` without the levels that lie on the floor.

    Where a score has come down to the majority class it cannot fall further, and the bend at the
    floor would hide the one at the collapse. Left out: everything after the first level with
    less than a tenth of the way left from the majority class to the dense model.
    """
    x_L, mean_L = level_means(curve)
    dense = float(column_means(curve.value_SL[:, :1])[0])
    if curve.majority is None or not dense > curve.majority:
        return x_L, mean_L
    low = np.flatnonzero(mean_L < (1 - FLOOR) * (curve.majority - dense))
    stop = len(x_L) if len(low) == 0 else int(low[0]) + 1
    return x_L[:stop], mean_L[:stop]
