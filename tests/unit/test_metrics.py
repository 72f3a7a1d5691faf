"""Metrics against reference values, by hand and from scikit-learn and scipy."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtickets.study.tasks import METRICS
from bigtickets.training.metrics import (
    compute,
    degenerate,
    evaluate_splits,
    majority_score,
)

CLASS_METRICS = [name for name, metric in METRICS.items() if not metric.regression]
NUMBER_METRICS = [name for name, metric in METRICS.items() if metric.regression]
LABELS = np.array([1, 1, 1, 0, 0, 1, 0, 1])
PREDICTED = np.array([1, 0, 1, 0, 1, 1, 0, 1])  # 4 true and 1 false positive, 1 false negative


def one_hot(predictions: np.ndarray, classes: int = 2) -> np.ndarray:
    """Logits whose largest is the prediction."""
    return np.eye(classes)[predictions] * 2.0


def test_by_hand() -> None:
    values = compute("accuracy_f1", one_hot(PREDICTED), LABELS)
    assert values["accuracy"] == 0.75
    assert values["f1"] == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))
    assert values["matthews"] == pytest.approx((4 * 2 - 1 * 1) / math.sqrt(5 * 5 * 3 * 3))
    assert values["score"] == pytest.approx((0.75 + 0.8) / 2)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert values["loss"] == pytest.approx((6 * right + 2 * wrong) / 8, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(2, 60), st.integers(0, 999))
def test_equal_to_the_references(classes: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, logits = random.integers(0, classes, count), random.normal(size=(count, classes))
    told = logits.argmax(-1)
    values = compute("accuracy", logits.astype(np.float32), labels)
    average = {"average": "binary"} if classes == 2 else {"average": "macro"}
    f1 = sklearn.metrics.f1_score(
        labels, told, zero_division=0.0, **average, labels=None if classes == 2 else range(classes)
    )
    assert values["accuracy"] == pytest.approx((labels == told).mean())
    assert values["f1"] == pytest.approx(f1)
    if len(set(labels)) > 1 and len(set(told)) > 1:
        expected = sklearn.metrics.matthews_corrcoef(labels, told)
        assert values["matthews"] == pytest.approx(expected)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert values["loss"] == pytest.approx(-np.log(p[np.arange(count), labels]).mean(), rel=1e-5)


def test_numbers() -> None:
    random = np.random.default_rng(0)
    labels = random.uniform(0, 5, 200).astype(np.float32)
    logits = (labels + random.normal(size=200)).astype(np.float32)[:, None]
    values = compute("pearson_spearman", logits, labels)
    x = logits[:, 0].astype(np.float64)
    assert values["pearson"] == pytest.approx(np.corrcoef(x, labels)[0, 1])
    assert values["spearman"] == pytest.approx(scipy.stats.spearmanr(x, labels).statistic)
    assert values["loss"] == pytest.approx(((x - labels) ** 2).mean())
    both = [values["pearson"], values["spearman"]]
    assert values["score"] == pytest.approx(np.mean(np.array(both, float)))


@pytest.mark.parametrize("metric", CLASS_METRICS)
@pytest.mark.parametrize("always", [0, 1])
def test_constant_classes(metric: str, always: int) -> None:
    logits = one_hot(np.full(8, always))
    values = compute(metric, logits, LABELS)
    assert values["matthews"] == 0.0
    assert values["f1"] == pytest.approx(2 * 5 / (2 * 5 + 3) if always else 0.0)
    assert degenerate(metric, logits, LABELS) == "constant"


@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_constant_numbers(metric: str) -> None:
    labels = np.arange(5.0)
    for noise in (0.0, 1e-9):
        logits = 2.5 + noise * labels[:, None] ** 2
        values = compute(metric, logits, labels)
        assert noise or values["score"] == 0.0
        assert degenerate(metric, logits, labels) == "constant"
    assert compute(metric, labels[:, None], np.ones(5))["score"] == 0.0


@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(metric: str, bad: float) -> None:
    regression = METRICS[metric].regression
    labels = np.arange(8.0) if regression else LABELS
    logits = labels[:, None].copy() if regression else one_hot(LABELS)
    logits[2, 0] = bad  # an example of class 1
    values = compute(metric, logits, labels)
    assert values["loss"] is None
    assert all(v is None or math.isfinite(v) for v in values.values())
    assert values["score"] is not None
    assert values["score"] < 1
    if not regression:
        assert values["accuracy"] == 7 / 8, "an example without a prediction is never right"
    assert degenerate(metric, logits, labels) == "nan"


def test_majority_score() -> None:
    assert majority_score("accuracy", LABELS) == 5 / 8
    assert majority_score("f1", LABELS) == pytest.approx(10 / 13)
    assert majority_score("accuracy_f1", LABELS) == pytest.approx((5 / 8 + 10 / 13) / 2)
    assert majority_score("f1", 1 - LABELS) == 0.0
    assert majority_score("matthews", LABELS) == 0.0
    assert majority_score("accuracy", np.array([2, 2, 0, 1])) == 0.5
    assert majority_score("pearson_spearman", np.arange(4.0)) == 0.0


def test_majority_flag() -> None:
    as_good = one_hot(np.array([1, 1, 1, 1, 1, 0, 1, 1]))  # 4 of 8 right; the majority gets 5
    assert degenerate("accuracy", as_good, LABELS) == "majority"
    equal = one_hot(np.array([1, 1, 1, 0, 1, 0, 1, 1]))  # 5 of 8
    assert degenerate("accuracy", equal, LABELS) == "majority"
    assert degenerate("accuracy", one_hot(PREDICTED), LABELS) is None
    falling = -np.arange(6.0)[:, None]
    assert degenerate("pearson", falling, np.arange(6.0)) == "majority"
    assert degenerate("pearson", -falling, np.arange(6.0)) is None


def test_three_classes_with_one_never_told() -> None:
    labels = np.array([0, 1, 2, 2])
    values = compute("f1", one_hot(np.array([0, 0, 2, 2]), 3), labels)
    assert values["f1"] == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_two_splits() -> None:
    good, poor = one_hot(LABELS), one_hot(PREDICTED)
    evaluation = evaluate_splits(
        "accuracy",
        [("validation_matched", good, LABELS), ("validation_mismatched", poor, LABELS)],
    )
    assert evaluation.metrics["score"] == evaluation.metrics["accuracy"] == 0.875
    assert evaluation.metrics["accuracy_m"] == 1.0
    assert evaluation.metrics["accuracy_mm"] == 0.75
    assert evaluation.majority_score == 5 / 8
    assert evaluation.degenerate is None


def test_one_split_has_plain_keys() -> None:
    evaluation = evaluate_splits("matthews", [("validation", one_hot(PREDICTED), LABELS)])
    assert set(evaluation.metrics) == {"score", "loss", "accuracy", "f1", "matthews"}


def test_worst_flag_of_two_splits() -> None:
    broken = one_hot(LABELS)
    broken[0, 0] = np.nan
    evaluation = evaluate_splits(
        "accuracy", [("a", one_hot(np.zeros(8, int)), LABELS), ("b", broken, LABELS)]
    )
    assert evaluation.degenerate == "nan"
    assert evaluation.metrics["loss"] is None
    assert evaluation.metrics["loss_a"] is not None
