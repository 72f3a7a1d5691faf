"""The gain of the super ticket, its interval and its null."""

import numpy as np
import pytest
from _known_truth import is_at_least, is_at_most, is_plain, table_of, truth

from bigtickets.analysis.statistics.crossfit import crossfit
from bigtickets.analysis.statistics.curves import curves
from bigtickets.analysis.statistics.examples import contributions
from bigtickets.analysis.statistics.gain import gain, gain_over_tasks
from bigtickets.analysis.statistics.levels import level_estimates
from bigtickets.analysis.statistics.resampling import (
    expanded_interval,
    half_splits,
    multiplier_draws,
    permuted_within_rows,
)


def test_no_effect_gives_no_gain_where_the_naive_gain_is_half_a_point():
    claimed, p_small, covered, debiased, naive, null = truth.check_null_gain(200, seed=1)
    assert is_at_most(claimed, 0.05)
    assert is_at_most(p_small, 0.05)
    assert is_at_least(covered, 0.95)
    assert abs(debiased.value) < 0.05 + (debiased.high - debiased.value)
    assert naive.value == pytest.approx(0.51, abs=0.06)
    assert null.value == pytest.approx(0.51, abs=0.03)


def test_a_true_gain_is_estimated_without_the_naive_bias():
    covered, claimed, p_small, debiased, naive = truth.check_gain(60, 1, "", truth.HILL, 10)
    assert is_at_least(covered, 0.93)
    assert claimed.value > 0.2
    assert p_small.value > 0.45
    assert 0.6 < debiased.value < 0.9 < naive.value


def test_a_collapse_with_wild_noise_is_no_gain():
    covered, claimed, p_small, *_ = truth.check_gain(100, 2, "", truth.COLLAPSED, 5, truth.WILD)
    assert is_at_least(covered, 0.93)
    assert is_at_most(claimed, 0.05)
    assert is_at_most(p_small, 0.05)


def test_levels_that_suit_the_evaluation_examples_are_no_gain():
    claimed, covered, debiased, naive = truth.check_examples(50, seed=1)
    assert is_at_most(claimed, 0.05)
    assert is_at_least(covered, 0.93)
    assert abs(debiased.value) < 2 * (debiased.high - debiased.value)
    assert naive.value > 1.0


def test_no_effect_on_several_tasks():
    claimed, _, debiased, naive = truth.check_null_tasks(25, seed=2, tasks=4)
    assert is_at_most(claimed, 0.05)
    assert abs(debiased.value) < 2 * (debiased.high - debiased.value)
    assert naive.value > 0.2


def test_the_level_is_read_off_on_the_seeds_that_did_not_choose_it():
    difference_SL = np.array([[3.0, 1.0], [0.0, 2.0]])
    held, share = crossfit(difference_SL[None], difference_SL[None], half_splits(2, 0))
    # Seed 0 picks level 0, where seed 1 has 0; seed 1 picks level 1, where seed 0 has 1.
    assert held[0].tolist() == [1.0, 0.0]
    assert share[0].tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_all_halves_of_few_seeds_and_balanced_ones_of_many():
    five = half_splits(5, 0)
    assert five.shape == (10, 5)
    assert five.sum(1).tolist() == [3] * 10
    assert five.sum(0).tolist() == [6] * 5
    many = half_splits(14, 0)
    assert many.shape == (252, 14)
    assert many.sum(0).tolist() == [126] * 14
    assert np.array_equal(many, half_splits(14, 0))
    assert (half_splits(13, 0).sum(1) == 7).all()


def test_multiplier_draws_have_the_sample_covariance():
    difference_SL = np.random.default_rng(0).normal(size=(5, 3)) * [1, 2, 3]
    draws = multiplier_draws(difference_SL, 4000, 0).reshape(-1, 3)
    assert draws.mean(0) == pytest.approx(difference_SL.mean(0), abs=0.06)
    assert np.cov(draws.T) == pytest.approx(np.cov(difference_SL.T), abs=0.25)


def test_permutations_stay_in_their_row_and_leave_gaps():
    values_SL = np.array([[1.0, 2.0, np.nan], [4.0, 5.0, 6.0]])
    draws = permuted_within_rows(values_SL, 50, 0)
    assert np.isnan(draws[:, 0, 2]).all()
    assert np.array_equal(np.sort(draws[:, 1], axis=1), np.tile([4.0, 5.0, 6.0], (50, 1)))


def test_the_expanded_interval_is_about_as_wide_as_students():
    rng = np.random.default_rng(0)
    widths, expected = [], []
    for _ in range(50):
        sample = rng.normal(size=8)
        low, high = expanded_interval(rng.choice(sample, (4000, 8)).mean(1), 8, 0.95)
        widths.append(high - low)
        expected.append(2 * 2.365 * sample.std(ddof=1) / 8**0.5)
    assert np.mean(widths) == pytest.approx(np.mean(expected), rel=0.1)


def a_curve(seeds=5, seed=0):
    return truth.curve_of(truth.noisy(np.random.default_rng(seed), truth.HILL, seeds))


def test_the_same_seed_gives_the_same_gain():
    assert gain(a_curve(), seed=3) == gain(a_curve(), seed=3)
    assert is_plain(gain(a_curve()))


def test_one_seed_has_a_naive_gain_and_nothing_else():
    found = gain(a_curve(seeds=1))
    assert found.naive is not None
    assert found.debiased.value is None
    assert "two seeds" in found.debiased.reason
    assert (found.null, found.p_value, found.found) == (None, None, False)
    assert is_plain(found)


def test_missing_cells_shrink_the_data_and_nothing_else():
    scores = truth.noisy(np.random.default_rng(0), truth.HILL, 5)
    scores[0, 3] = scores[2, 1] = scores[4, 0] = np.nan
    found = gain(truth.curve_of(scores))
    assert is_plain(found)
    assert found.seeds == 4
    assert found.debiased.value is not None
    scores[:, 5] = np.nan
    assert gain(truth.curve_of(scores)).levels == 7


def test_an_empty_curve_and_a_curve_without_spread_say_why():
    empty = gain(truth.curve_of(np.full((3, 9), np.nan)))
    assert empty.naive is None
    assert empty.debiased.reason
    still = gain(truth.curve_of(np.tile(np.r_[0.8, np.full(8, 0.81)], (4, 1))))
    assert still.debiased.value == pytest.approx(0.01)
    assert still.debiased.low is None
    assert "no spread" in still.debiased.reason
    assert not still.found
    assert is_plain([empty, still])


def test_examples_widen_the_interval_of_a_level():
    rng = np.random.default_rng(0)
    hard_N = rng.random((9, 100)) < 0.2
    wrong = hard_N | (rng.random((5, 9, 100)) < 0.02)
    curve = truth.curve_of((~wrong).mean(-1))
    names = [name for row in curve.trials for name in row]
    known = contributions(dict(zip(names, (~wrong).reshape(-1, 100), strict=True)))
    plain, wide = level_estimates(curve)[0], level_estimates(curve, known)[0]
    assert wide.value == plain.value
    assert wide.high - wide.low > plain.high - plain.low
    assert gain(curve, known).over == ("seeds", "examples")


def test_examples_of_some_trials_only_are_not_used():
    curve = a_curve()
    assert gain(curve, contributions({"0-0": np.ones(10)})).over == ("seeds",)


def test_the_mean_over_tasks_needs_every_task():
    gains = [gain(a_curve(seed=s)) for s in (1, 2)]
    both = gain_over_tasks(gains)
    assert both.these_tasks.value == pytest.approx(np.mean([one.debiased.value for one in gains]))
    assert both.new_tasks.low <= both.these_tasks.low
    assert both.new_tasks.high >= both.these_tasks.high
    broken = gain_over_tasks([*gains, gain(a_curve(seeds=1))])
    assert broken.these_tasks.value is None
    assert broken.p_value is None
    assert is_plain([both, broken, gain_over_tasks(gains[:1])])


def test_gains_of_loss_and_rescaled_score():
    rng = np.random.default_rng(0)
    scores = {("dense", 0.0, s): 0.8 + 0.001 * rng.normal() for s in range(4)}
    scores |= {("winning", 0.2, s): 0.83 + 0.001 * rng.normal() for s in range(4)}
    table = table_of(scores)
    (loss,) = curves(table, value="loss")
    (rescaled,) = curves(table, value="rescaled")
    assert gain(loss).debiased.value == pytest.approx(0.03, abs=0.003)
    assert gain(rescaled).debiased.value == pytest.approx(0.1, abs=0.01)
