"""Curves from the table, and scores of resampled examples."""

import numpy as np
import pandas as pd
import pytest
from _known_truth import table_of
from scipy import stats
from sklearn import metrics

from bigtickets.analysis.statistics.curves import curves
from bigtickets.analysis.statistics.examples import examples_of, metric_examples, shared_variance
from bigtickets.errors import InputError

SCORES = {
    ("dense", 0.0, 0): 0.80, ("winning", 0.2, 0): 0.82, ("winning", 0.4, 0): 0.70,
    ("dense", 0.0, 1): 0.82, ("winning", 0.2, 1): 0.81, ("winning", 0.4, 1): None,
    ("random", 0.2, 0): 0.75, ("random", 0.2, 1): 0.76,
}  # fmt: skip


def test_differences_are_paired_by_seed():
    (curve,) = curves(table_of(SCORES))
    assert curve.ratios == (0.2, 0.4)
    assert curve.x_L == pytest.approx([0.201, 0.401])
    expected = [[0.02, -0.10], [-0.01, np.nan]]
    assert curve.difference_SL == pytest.approx(np.array(expected), nan_ok=True)
    assert curve.mean_L == pytest.approx([0.005, -0.10])
    assert curve.trials[1][1] == "winning-0.2-1"


def test_missing_and_degenerate_are_counted_and_not_imputed():
    table = table_of(SCORES)
    table.loc[table["id"] == "winning-0.4-0", "degenerate"] = "constant"
    (curve,) = curves(table)
    assert (curve.missing, curve.degenerate) == (1, 1)
    assert curve.difference_SL[0, 1] == pytest.approx(-0.10)


def test_a_seed_without_a_dense_trial_has_no_differences():
    scores = {key: s for key, s in SCORES.items() if key != ("dense", 0.0, 1)}
    (curve,) = curves(table_of(scores))
    assert np.isnan(curve.difference_SL[1]).all()
    assert curve.usable_S.tolist() == [True, False]
    assert curve.missing == 2


def test_loss_is_negated_and_rescaled_runs_from_majority_to_dense():
    table = table_of(SCORES)
    (loss,) = curves(table, value="loss")
    assert loss.difference_SL[0, 0] == pytest.approx(0.02)
    assert loss.majority is None
    (rescaled,) = curves(table, value="rescaled")
    assert rescaled.value_SL[:, 0].mean() == pytest.approx(1.0)
    assert rescaled.value_SL[0, 2] == pytest.approx((0.70 - 0.5) / (0.81 - 0.5))


def test_a_dense_model_at_the_majority_class_cannot_be_rescaled():
    (curve,) = curves(table_of(SCORES, majority_score=0.9), value="rescaled")
    assert "majority" in curve.reason
    assert np.isnan(curve.value_SL).all()


def test_kinds_share_the_dense_trials():
    winning, random = curves(table_of(SCORES), kinds=("winning", "random"))[::-1]
    assert {winning.kind, random.kind} == {"winning", "random"}
    assert np.array_equal(winning.value_SL[:, 0], random.value_SL[:, 0])


def test_two_trials_in_one_cell_and_missing_columns_are_refused():
    table = table_of(SCORES)
    with pytest.raises(InputError, match=r"two trials for m, sst2, winning, ratio 0\.2, seed 0"):
        curves(pd.concat([table, table.iloc[[1]]]))
    with pytest.raises(InputError, match="x_flops"):
        curves(table.drop(columns="x_flops"), axis="x_flops")


CLASSES = {
    "accuracy": metrics.accuracy_score,
    "f1": metrics.f1_score,
    "matthews": metrics.matthews_corrcoef,
}


@pytest.mark.parametrize("name", CLASSES)
def test_class_metrics_of_resamples_are_those_of_the_repeated_examples(name):
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 2, 60)
    logits_NC = rng.normal(size=(60, 2)) + 1.5 * np.eye(2)[labels_N]
    fast = examples_of(name, {"a": logits_NC}, labels_N)
    slow = metric_examples(
        lambda z_NC, y_N: CLASSES[name](y_N, z_NC.argmax(-1)), {"a": logits_NC}, labels_N
    )
    weight_RN = fast.bootstrap_weights(20, 0)
    assert fast.scores("a", weight_RN) == pytest.approx(slow.scores("a", weight_RN))


def test_three_classes_and_constant_predictions_have_a_matthews_correlation():
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 3, 90)
    logits_NC = rng.normal(size=(90, 3)) + np.eye(3)[labels_N]
    known = examples_of("matthews", {"a": logits_NC, "flat": np.eye(3)[[1] * 90]}, labels_N)
    whole = np.ones((1, 90))
    expected = metrics.matthews_corrcoef(labels_N, logits_NC.argmax(-1))
    assert known.scores("a", whole)[0] == pytest.approx(expected)
    assert known.scores("flat", whole)[0] == 0.0


@pytest.mark.parametrize(("name", "wanted"), [("pearson", "pearsonr"), ("spearman", "spearmanr")])
def test_correlations_far_from_zero(name, wanted):
    rng = np.random.default_rng(0)
    labels_N = 1000 + rng.normal(size=50)
    logits_NC = (labels_N + rng.normal(size=50))[:, None]
    known = examples_of(name, {"a": logits_NC}, labels_N)
    expected = getattr(stats, wanted)(logits_NC[:, 0], labels_N)[0]
    assert known.scores("a", np.ones((1, 50)))[0] == pytest.approx(expected)


def test_loss_is_cross_entropy_or_squared_error():
    labels_N = np.array([0, 1])
    logits_NC = np.array([[1.0, 0.0], [0.0, 2.0]])
    whole = np.ones((1, 2))
    loss = examples_of("loss", {"a": logits_NC}, labels_N).scores("a", whole)[0]
    assert loss == pytest.approx(
        metrics.log_loss(labels_N, np.exp(logits_NC) / np.exp(logits_NC).sum(1, keepdims=True))
    )
    square = examples_of("loss", {"a": logits_NC[:, :1]}, labels_N).scores("a", whole)[0]
    assert square == pytest.approx(1.0)


def test_an_unknown_metric_names_the_known_ones():
    with pytest.raises(InputError, match="accuracy, f1, matthews"):
        examples_of("bleu", {}, np.array([]))


def test_halves_are_complementary():
    weight_RN = examples_of("accuracy", {}, np.zeros(11)).half_weights(3, 0)
    assert np.array_equal(weight_RN[0::2] + weight_RN[1::2], np.ones((3, 11)))
    assert weight_RN.sum(1).tolist() == [5, 6] * 3


def test_shared_variance_is_that_of_the_examples_alone():
    rng = np.random.default_rng(0)
    seeds, count = 5, 200
    found = []
    for _ in range(200):
        value_SN = (
            rng.normal(size=(seeds, 1)) + rng.normal(size=count) + rng.normal(size=(seeds, count))
        )
        weight_BN = rng.multinomial(count, np.full(count, 1 / count), size=100) / count
        found.append(shared_variance(value_SN @ weight_BN.T))
    assert np.mean(found) == pytest.approx(1 / count, rel=0.1)
