"""Metrics of one trained model, computed in this process from all logits at once.

`evaluate`'s own metrics are scripts that it fetches from the Hub, and its caches collide when many
jobs share them; scikit-learn and scipy, which those scripts call, need neither. A study may name
such a script all the same: see `bigtickets.training.metric_module`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.special
import scipy.stats
import sklearn.metrics

from bigtickets.study.spec import MetricModule
from bigtickets.study.tasks import METRICS, is_regression
from bigtickets.training import metric_module

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
    majority_score: float | None
    """Headline of always predicting the most frequent class; 0 for correlations. Of a metric
    module: the best constant's, None if it has none for constants."""
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

    `nan`: a logit, or the headline, that is not finite. `constant`: the same prediction for every
    example. `majority`: a headline at or below `majority_score`.
    """
    logits_NC = np.asarray(logits_NC, np.float64)
    predictions = (
        _one_column(logits_NC) if is_regression(metric) else np.asarray(logits_NC.argmax(-1))
    )
    score = compute(metric, logits_NC, labels_N)["score"]
    return _flag(logits_NC, predictions, score, majority_score(metric, labels_N))


def evaluate_splits(
    metric: str,
    splits: Sequence[tuple[str, np.ndarray, np.ndarray]],
    module: MetricModule | None = None,
) -> Evaluation:
    """Everything about (name, logits, labels) of each evaluation split.

    Of several splits (MNLI's matched and mismatched) the plain keys are means over them, and each
    one's own values stand beside them, as `accuracy_m` and `accuracy_mm`. The worst of their
    flags is the model's.
    """
    judged = [
        _of_module(module, logits, labels) if module else _of_table(metric, logits, labels)
        for _, logits, labels in splits
    ]
    each = [values for values, _, _ in judged]
    metrics = {key: _mean([values.get(key) for values in each]) for key in each[0]}
    if len(each) > 1:
        for (name, _, _), values in zip(splits, each, strict=True):
            metrics |= {f"{key}_{SHORT.get(name, name)}": value for key, value in values.items()}
    flags = {flag for _, _, flag in judged}
    order: tuple[Degenerate, ...] = ("nan", "constant", "majority")
    worst = next((flag for flag in order if flag in flags), None)
    return Evaluation(metrics, _mean([least for _, least, _ in judged]), worst)


def _of_table(
    metric: str, logits_NC: np.ndarray, labels_N: np.ndarray
) -> tuple[Values, float | None, Degenerate | None]:
    """(metrics, majority score, flag) of one split by a metric of the table."""
    least = majority_score(metric, labels_N)
    flag = degenerate(metric, logits_NC, labels_N)
    return compute(metric, logits_NC, labels_N), least, flag


def _of_module(
    module: MetricModule, logits_NC: np.ndarray, labels_N: np.ndarray
) -> tuple[Values, float | None, Degenerate | None]:
    """The same by a metric module; the table's metrics of the same sort stand beside its own."""
    logits_NC = np.asarray(logits_NC, np.float64)
    beside = (
        _of_numbers(_one_column(logits_NC), np.asarray(labels_N, np.float64))
        if module.input == "values"
        else _of_classes(logits_NC, np.asarray(labels_N, np.int64))
    )
    values = {**beside, **metric_module.compute(module, logits_NC, labels_N)}
    least = metric_module.majority_score(module, labels_N, logits_NC.shape[-1])
    given = metric_module.given_to(module, logits_NC)
    return values, least, _flag(logits_NC, given, values["score"], least)


def _flag(
    logits_NC: np.ndarray, predictions: np.ndarray, score: float | None, least: float | None
) -> Degenerate | None:
    """`predictions`: (N,), or (N, C) where a metric is given several numbers per example."""
    if not np.isfinite(logits_NC).all():
        return "nan"
    spread = np.ptp(predictions, axis=0).max()
    if spread <= ROUNDING * max(1.0, float(np.abs(predictions).max())):
        return "constant"
    if score is None:
        return "nan"
    return "majority" if least is not None and score <= least + TOLERANCE else None


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
