"""Metrics of one trained model, computed in this process from all logits at once.

`evaluate`'s own metrics are scripts that it fetches from the Hub, and its caches collide when many
jobs share them; scikit-learn and scipy, which those scripts call, need neither.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.special
import scipy.stats
import sklearn.metrics

from bigtickets.study.tasks import METRICS, is_regression

Degenerate = Literal["nan", "constant", "majority"]
Values = dict[str, float | None]

NO_CLASS = -1
"""Prediction of an example whose logits are not finite: never right."""
SHORT = {"validation_matched": "m", "validation_mismatched": "mm"}
ROUNDING = 1e-6
"""Predictions of a regression that differ by less, relative to the largest, are the same."""
TOLERANCE = 1e-9
"""A score that is equal to the majority's may differ from it in the last digits."""


@dataclass(frozen=True)
class Evaluation:
    """What a trial's record says about the trained model."""

    metrics: Values
    """`score` (the headline) and all metrics of its sort; JSON-safe."""
    majority_score: float
    """Headline of always predicting the most frequent class; 0 for correlations."""
    degenerate: Degenerate | None


def compute(metric: str, logits_NC: np.ndarray, labels_N: np.ndarray) -> Values:
    """All metrics of one evaluation split, in natural units; `score` is the headline.

    Classes: loss (mean cross-entropy), accuracy, f1, matthews. Numbers: loss (mean squared error),
    pearson, spearman. f1 is that of class 1, or the mean over classes where there are more than
    two. A correlation with something constant is 0. The loss is None where it is not finite.
    """
    if is_regression(metric):
        values = _of_numbers(_one_column(logits_NC), np.asarray(labels_N, np.float64))
    else:
        values = _of_classes(np.asarray(logits_NC, np.float64), np.asarray(labels_N, np.int64))
    return {"score": _headline(metric, values), **values}


def majority_score(metric: str, labels_N: np.ndarray) -> float:
    """Headline of predicting the most frequent label always; the first one of equals."""
    if is_regression(metric):
        return 0.0
    labels = np.asarray(labels_N, np.int64)
    most = int(np.bincount(labels).argmax())
    return _headline(metric, _scores(np.full_like(labels, most), labels, _classes(labels)))


def degenerate(metric: str, logits_NC: np.ndarray, labels_N: np.ndarray) -> Degenerate | None:
    """Whether the model learned nothing: the first of these that holds, else None.

    `nan`: a logit that is not finite. `constant`: the same prediction for every example.
    `majority`: a headline at or below `majority_score`.
    """
    logits_NC = np.asarray(logits_NC, np.float64)
    if not np.isfinite(logits_NC).all():
        return "nan"
    predictions = (
        _one_column(logits_NC) if is_regression(metric) else np.asarray(logits_NC.argmax(-1))
    )
    if np.ptp(predictions) <= ROUNDING * max(1.0, float(np.abs(predictions).max())):
        return "constant"
    score = compute(metric, logits_NC, labels_N)["score"]
    least = majority_score(metric, labels_N)
    return "majority" if score is None or score <= least + TOLERANCE else None


def evaluate_splits(
    metric: str, splits: Sequence[tuple[str, np.ndarray, np.ndarray]]
) -> Evaluation:
    """Everything about (name, logits, labels) of each evaluation split.

    Of several splits (MNLI's matched and mismatched) the plain keys are means over them, and each
    one's own values stand beside them, as `accuracy_m` and `accuracy_mm`. The worst of their
    flags is the model's.
    """
    each = [compute(metric, logits, labels) for _, logits, labels in splits]
    metrics = {key: _mean([values[key] for values in each]) for key in each[0]}
    if len(each) > 1:
        for (name, _, _), values in zip(splits, each, strict=True):
            metrics |= {f"{key}_{SHORT.get(name, name)}": value for key, value in values.items()}
    flags = {degenerate(metric, logits, labels) for _, logits, labels in splits}
    majority = [majority_score(metric, labels) for _, _, labels in splits]
    order: tuple[Degenerate, ...] = ("nan", "constant", "majority")
    worst = next((flag for flag in order if flag in flags), None)
    return Evaluation(metrics, float(np.mean(majority)), worst)


def _headline(metric: str, values: Values) -> float:
    parts = [values[key] for key in METRICS[metric].keys]
    assert None not in parts, "only a loss can be None"
    return float(np.mean(parts))  # type: ignore[arg-type]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _of_classes(logits_NC: np.ndarray, labels_N: np.ndarray) -> Values:
    finite_N = np.isfinite(logits_NC).all(-1)
    predictions_N = np.where(finite_N, logits_NC.argmax(-1), NO_CLASS)
    loss = None
    if finite_N.all():
        log_p_NC = scipy.special.log_softmax(logits_NC, axis=-1)
        loss = float(-log_p_NC[np.arange(len(labels_N)), labels_N].mean())
    return {"loss": loss, **_scores(predictions_N, labels_N, logits_NC.shape[-1])}


def _scores(predictions_N: np.ndarray, labels_N: np.ndarray, classes: int) -> Values:
    kinds = [1] if classes == 2 else list(range(classes))
    f1 = sklearn.metrics.f1_score(
        labels_N, predictions_N, labels=kinds, average="macro", zero_division=0.0
    )
    return {
        "accuracy": float((predictions_N == labels_N).mean()),
        "f1": float(f1),
        "matthews": _matthews(predictions_N, labels_N),
    }


def _matthews(predictions_N: np.ndarray, labels_N: np.ndarray) -> float:
    if len(np.unique(predictions_N)) < 2 or len(np.unique(labels_N)) < 2:
        return 0.0
    return float(sklearn.metrics.matthews_corrcoef(labels_N, predictions_N))


def _of_numbers(predictions_N: np.ndarray, labels_N: np.ndarray) -> Values:
    if not np.isfinite(predictions_N).all():
        return {"loss": None, "pearson": 0.0, "spearman": 0.0}
    return {
        "loss": float(np.square(predictions_N - labels_N).mean()),
        "pearson": _correlation(predictions_N, labels_N),
        "spearman": _correlation(
            scipy.stats.rankdata(predictions_N), scipy.stats.rankdata(labels_N)
        ),
    }


def _correlation(x_N: np.ndarray, y_N: np.ndarray) -> float:
    if len(x_N) < 2 or (x_N == x_N[0]).all() or (y_N == y_N[0]).all():
        return 0.0
    with warnings.catch_warnings():
        # Nearly constant predictions: a result is given, and it is as good as can be.
        warnings.simplefilter("ignore", scipy.stats.NearConstantInputWarning)
        r = float(scipy.stats.pearsonr(x_N, y_N).statistic)
    return r if np.isfinite(r) else 0.0


def _one_column(logits_NC: np.ndarray) -> np.ndarray:
    return np.asarray(logits_NC, np.float64).reshape(len(logits_NC), -1)[:, 0]


def _classes(labels_N: np.ndarray) -> int:
    return max(2, int(labels_N.max()) + 1)
