"""Scores of a trial when the evaluation examples are weighted: resampled, or halved.

A bootstrap draw of the examples is a vector of integer weights. Most metrics are smooth functions
of means over examples (accuracy: of one mean; F1: of the confusion matrix), so a thousand draws
are one matrix product. Any other metric is evaluated on the repeated examples, which is slow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import log_softmax

from bigtickets.analysis.statistics.estimates import Array
from bigtickets.errors import InputError

Combine = Callable[[Array], Array]
Features = Callable[[Array, NDArray], Array]


class Examples(Protocol):
    """What the analyses need of the predictions on the N evaluation examples."""

    def __contains__(self, trial: object) -> bool:
        """Whether the trial's predictions are known."""

    def scores(self, trial: str, weight_RN: Array) -> Array:
        """The trial's score under each of R weightings (R,)."""

    def bootstrap_weights(self, draws: int, seed: int) -> Array:
        """Multinomial weights (R, N)."""

    def half_weights(self, pairs: int, seed: int) -> Array:
        """Random halves, each beside its complement, as 0/1 weights (2 pairs, N)."""


@dataclass(frozen=True, eq=False)
class _Weights:
    """Weightings of N examples."""

    count: int

    def bootstrap_weights(self, draws: int, seed: int) -> Array:
        """Weights of `draws` bootstrap samples of the examples (R, N)."""
        rng = np.random.default_rng([seed, 1])
        even_N = np.full(self.count, 1 / self.count)
        return rng.multinomial(self.count, even_N, size=draws).astype(np.float64)

    def half_weights(self, pairs: int, seed: int) -> Array:
        """Rows 2i and 2i+1 are a random half of the examples and the other half (2 pairs, N)."""
        rng = np.random.default_rng([seed, 2])
        order_PN = rng.random((pairs, self.count)).argsort(-1)
        half_PN = (order_PN < self.count // 2).astype(np.float64)
        return np.stack([half_PN, 1 - half_PN], axis=1).reshape(-1, self.count)


@dataclass(frozen=True, eq=False)
class MeanExamples(_Weights):
    """Metrics that are functions of means of K features over the examples."""

    features: Mapping[str, Array]
    """Trial id to (N, K)."""
    combine: Combine
    """Means (..., K) to scores (...)."""

    def __contains__(self, trial: object) -> bool:
        return trial in self.features

    def scores(self, trial: str, weight_RN: Array) -> Array:
        """The metric under each weighting (R,)."""
        mean_RK = weight_RN @ self.features[trial] / weight_RN.sum(-1, keepdims=True)
        return self.combine(mean_RK)


@dataclass(frozen=True, eq=False)
class MetricExamples(_Weights):
    """Any metric of (logits, labels), evaluated anew on every weighting."""

    logits: Mapping[str, Array]
    labels_N: NDArray
    metric: Callable[[Array, NDArray], float]

    def __contains__(self, trial: object) -> bool:
        return trial in self.logits

    def scores(self, trial: str, weight_RN: Array) -> Array:
        """The metric on each weighting's examples, repeated as often as they weigh (R,)."""
        index = np.arange(self.count)
        picked = (np.repeat(index, weight_N.astype(int)) for weight_N in weight_RN)
        return np.array([self.metric(self.logits[trial][i], self.labels_N[i]) for i in picked])


def contributions(score_of: Mapping[str, Array]) -> MeanExamples:
    """Examples of a metric that is a plain mean: trial id to per-example scores (N,)."""
    features = {trial: np.asarray(c, np.float64)[:, None] for trial, c in score_of.items()}
    count = len(next(iter(features.values()))) if features else 0
    return MeanExamples(count, features, lambda mean: mean[..., 0])


def metric_examples(
    metric: Callable[[Array, NDArray], float], logits: Mapping[str, Array], labels_N: NDArray
) -> MetricExamples:
    """Examples for any metric(logits (N, C), labels (N,))."""
    return MetricExamples(len(labels_N), logits, np.asarray(labels_N), metric)


def examples_of(metric: str, logits: Mapping[str, Array], labels_N: NDArray) -> MeanExamples:
    """Examples for accuracy, f1, matthews, pearson, spearman or loss.

    `logits`: trial id to (N, C), with C = 1 for regression. Spearman's ranks are those of the
    whole split, also in a resample. Raises InputError for another metric.
    """
    if metric not in METRICS:
        raise InputError(f"metric {metric!r}: examples are known for {', '.join(METRICS)}")
    features_of, combine = METRICS[metric]
    labels_N = np.asarray(labels_N)
    features = {t: features_of(np.asarray(z, np.float64), labels_N) for t, z in logits.items()}
    return MeanExamples(len(labels_N), features, combine)


def shared_variance(draws_SB: Array) -> float:
    """Variance of a mean over seeds that comes from examples which all seeds share.

    With value(s, i) = seed s + example i + interaction, the variance of the mean has the parts
    σ²_seed/S + σ²_example/N + σ²_interaction/(SN). The spread between seeds holds the first and
    the third; this is the second. A bootstrap over examples of the mean over seeds holds the
    second and the third, that of single seeds (σ²_example + σ²_interaction)/N, and the two give
    the third: subtracted, so that nothing is counted twice (Owen 2007, the pigeonhole bootstrap).
    `draws_SB`: one value per seed and bootstrap draw of the examples.
    """
    known_SB = draws_SB[np.isfinite(draws_SB).all(-1)]
    seeds = len(known_SB)
    if seeds == 0:
        return 0.0
    together = float(known_SB.mean(0).var(ddof=1))
    if seeds == 1:
        return together
    single = float(known_SB.var(axis=-1, ddof=1).mean())
    return max(together - (single - together) / (seeds - 1), 0.0)


def _correct(logits_NC: Array, labels_N: NDArray) -> Array:
    return (logits_NC.argmax(-1) == labels_N).astype(np.float64)[:, None]


def _confusion(logits_NC: Array, labels_N: NDArray) -> Array:
    """One-hot (label, prediction) of each example, flattened (N, C²)."""
    classes = logits_NC.shape[-1]
    return np.eye(classes**2)[labels_N.astype(int) * classes + logits_NC.argmax(-1)]


def _f1(mean: Array) -> Array:
    """2 TP / (2 TP + FP + FN) of class 1 of two."""
    hits, wrong = mean[..., 3], mean[..., 1] + mean[..., 2]
    return _ratio(2 * hits, 2 * hits + wrong)


def _matthews(mean: Array) -> Array:
    """Gorodkin's R_K, which is Matthews' correlation for two classes; 0 where it is undefined."""
    classes = round(mean.shape[-1] ** 0.5)
    share = mean.reshape(*mean.shape[:-1], classes, classes)
    true, told = share.sum(-1), share.sum(-2)
    hits = np.trace(share, axis1=-2, axis2=-1)
    spread = (1 - (true**2).sum(-1)) * (1 - (told**2).sum(-1))
    return _ratio(hits - (true * told).sum(-1), np.sqrt(np.maximum(spread, 0)))


def _moments(logits_NC: Array, labels_N: NDArray) -> Array:
    x, y = logits_NC.reshape(len(labels_N), -1)[:, 0], labels_N.astype(np.float64)
    x, y = x - x.mean(), y - y.mean()  # far from 0 the sums of squares would cancel
    return np.stack([x, y, x * x, y * y, x * y], axis=-1)


def _rank_moments(logits_NC: Array, labels_N: NDArray) -> Array:
    ranks = stats.rankdata(logits_NC.reshape(len(labels_N), -1)[:, 0])
    return _moments(ranks[:, None], stats.rankdata(labels_N))


def _correlation(mean: Array) -> Array:
    x, y, xx, yy, xy = np.moveaxis(mean, -1, 0)
    spread = np.sqrt(np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0))
    return _ratio(xy - x * y, spread)


def _losses(logits_NC: Array, labels_N: NDArray) -> Array:
    """Cross-entropy, or squared error where there is one output."""
    if logits_NC.shape[-1] == 1:
        return (logits_NC - labels_N[:, None]) ** 2
    chosen = labels_N.astype(int)[:, None]
    return -np.take_along_axis(log_softmax(logits_NC, axis=-1), chosen, axis=-1)


def _ratio(top: Array, bottom: Array) -> Array:
    """top / bottom, 0 where the bottom is 0."""
    return np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 1e-300)


def _only(mean: Array) -> Array:
    return mean[..., 0]


METRICS: dict[str, tuple[Features, Combine]] = {
    "accuracy": (_correct, _only),
    "f1": (_confusion, _f1),
    "matthews": (_confusion, _matthews),
    "pearson": (_moments, _correlation),
    "spearman": (_rank_moments, _correlation),
    "loss": (_losses, _only),
}
