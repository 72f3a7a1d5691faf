"""Collapse point, phases, logistic fall and the break."""

import numpy as np
import pytest
from _known_truth import is_at_least, is_at_most, is_plain, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from bigtickets.analysis.statistics.breaks import find_break
from bigtickets.analysis.statistics.estimates import Estimate, holm, joined, mean_interval
from bigtickets.analysis.statistics.falls import fall
from bigtickets.analysis.statistics.fits import logistic, polynomial, refined, segmented
from bigtickets.analysis.statistics.levels import above_floor, level_spread
from bigtickets.analysis.statistics.phases import collapse_point, pooled_deviation
from bigtickets.analysis.statistics.transition import transition

X = np.linspace(0, 0.8, 9)
EVEN = np.ones(9)


def test_a_true_break_is_covered():
    at, where, supported, collapse, slope = truth.check_transition(60, 1, 0.003)
    assert is_at_least(at, 0.93)
    assert where.value == pytest.approx(0.3, abs=0.01)
    assert supported.value > 0.9
    assert is_at_least(collapse, 0.93)
    assert is_at_least(slope, 0.90)


def test_a_break_in_more_noise_is_still_covered():
    at, *_ = truth.check_transition(30, 2, truth.SD)
    assert is_at_least(at, 0.93)


@pytest.mark.parametrize("wild", [False, True])
def test_smooth_curves_have_no_break(wild):
    names = ("flat", "quadratic", "logistic at 0.9", "exponential")
    for result in truth.check_smooth(15, 3, wild, names):
        assert is_at_most(result, 0.05), result


def test_a_logistic_fall_is_covered():
    width, midpoint, mean = truth.check_width(30, 1)
    assert is_at_least(width, 0.93)
    assert is_at_least(midpoint, 0.93)
    assert mean.value == pytest.approx(0.22, abs=0.01)


@pytest.mark.parametrize("spread_L", [EVEN, np.linspace(1, 3, 9)])
def test_grid_fits_are_exact_least_squares(spread_L):
    curve_L = np.random.default_rng(0).normal(size=9) - 3 * np.maximum(X - 0.35, 0)
    bent = segmented(X, spread_L)
    point = int(bent.squares(curve_L[None] / spread_L)[:, 0].argmin())
    tau = bent.grid_GQ[point, 0]
    design = np.stack([np.ones(9), X, np.maximum(X - tau, 0)], -1)
    weighted = np.linalg.lstsq(design / spread_L[:, None], curve_L / spread_L, rcond=None)[0]
    fitted = spread_L * bent.fitted(point, curve_L / spread_L)
    assert weighted[2] < 0
    assert fitted == pytest.approx(design @ weighted)
    squares = (((curve_L - fitted) / spread_L) ** 2).sum()
    assert bent.least_squares(curve_L[None] / spread_L)[0] == pytest.approx(squares)


def test_a_bend_upwards_is_no_break():
    found = find_break(X, 2 * np.maximum(X - 0.4, 0))
    assert not found.supported
    assert "bends nowhere down" in found.reason


def test_a_perfect_shape_is_found_on_the_grid():
    found = find_break(X, -np.maximum(X - 0.3, 0) + 1e-6 * np.sin(50 * X))
    assert found.supported
    assert found.at.value == pytest.approx(0.3, abs=0.002)
    assert (found.slope_before, found.slope_after) == pytest.approx((0, -1), abs=3e-3)
    assert found.best == "segmented"
    curve_L = 0.5 / (1 + np.exp((X - 0.43) / 0.07)) + 1e-6 * np.sin(50 * X)
    best = fall(X, curve_L)
    assert best.midpoint.value == pytest.approx(0.43, abs=1e-3)
    assert best.width.value == pytest.approx(2 * np.log(9) * 0.07, rel=0.02)
    assert (best.top, best.bottom) == pytest.approx((0.5, 0), abs=0.01)


def test_families_nest():
    curve_BL = np.random.default_rng(0).normal(size=(20, 9))
    line = polynomial(X, EVEN, 1, "linear").least_squares(curve_BL)
    assert (polynomial(X, EVEN, 2, "quadratic").least_squares(curve_BL) <= line).all()
    assert (segmented(X, EVEN).least_squares(curve_BL) <= line + 1e-12).all()
    coarse = logistic(X, EVEN)
    fine = refined(coarse, X, EVEN, curve_BL[0])
    assert fine.least_squares(curve_BL[:1])[0] <= coarse.least_squares(curve_BL[:1])[0]


def levels_of(values, half):
    return [Estimate(v, v - half, v + half, half / 2, 4.0) for v in values]


def test_the_collapse_point_is_interpolated_and_its_interval_inverts_the_band():
    x_L = np.array([0.2, 0.4, 0.6])
    found = collapse_point(x_L, levels_of([0.0, -0.02, -0.06], 0.01), 0.01, 0.95)
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.2)
    assert found.high == pytest.approx(0.4)


def test_no_collapse_and_an_unsure_one_say_so():
    x_L = np.array([0.2, 0.4])
    never = collapse_point(x_L, levels_of([0.01, 0.0], 0.005), 0.01, 0.95)
    assert (never.value, never.high) == (None, None)
    assert "no level is worse" in never.reason
    unsure = collapse_point(x_L, levels_of([0.0, -0.02], 0.03), 0.01, 0.95)
    assert unsure.value == pytest.approx(0.3)
    assert unsure.low is not None
    assert unsure.high is None
    assert "upper edge" in unsure.reason


def make(truth_L, sd=0.002, seeds=5, seed=0, **known):
    scores = truth.noisy(np.random.default_rng(seed), truth_L, seeds, sd)
    return truth.curve_of(scores, **known)


def test_phases_add_up_and_are_labelled():
    found = transition(make(np.array([1, 2, 2, 1, 0, -2, -5, -9]) / 100))
    widths = found.phases
    assert widths.better + widths.as_good + widths.worse == pytest.approx(0.8)
    assert 0.3 < widths.better < 0.55
    assert widths.worse == pytest.approx(0.8 - found.collapse_sd.value)
    assert [label for _, label in widths.labels][1:3] == ["better"] * 2
    assert [label for _, label in widths.labels][-2:] == ["worse"] * 2


def test_a_flat_curve_has_one_phase_and_no_transition():
    found = transition(make(np.zeros(8)))
    assert (found.phases.better, found.phases.worse) == (0.0, 0.0)
    assert not found.found
    assert found.verdict.startswith("no transition found")
    assert found.slope.value is None
    assert found.logistic.reason.startswith("no fall")


def test_a_gradual_decline_is_no_transition():
    found = transition(make(-0.3 * truth.NINE**2))
    assert not found.found
    assert "gradual decline" in found.verdict


def test_a_sharp_one_is():
    found = transition(make(truth.hinge(truth.NINE)))
    assert found.found
    assert "a break at x = 0." in found.verdict


def test_the_pooled_deviation_leaves_collapsed_levels_out():
    curve = make(truth.COLLAPSED, sd=0.008, seeds=40)
    wild = make(truth.COLLAPSED - np.r_[np.zeros(7), 0.2], sd=0.008, seeds=40)
    wild.value_SL[:, -1] += np.random.default_rng(0).normal(0, 0.1, 40)
    assert pooled_deviation(curve) == pytest.approx(0.008 * 2**0.5, rel=0.15)
    assert pooled_deviation(wild) == pytest.approx(pooled_deviation(curve), rel=0.1)


def test_levels_on_the_floor_are_left_out_of_the_break():
    curve = make(np.array([0, 0, 0, -20, -35, -35, -35, -35]) / 100, majority=0.5)
    x_L, mean_L = above_floor(curve)
    assert len(x_L) == len(mean_L) == 6
    assert transition(curve).segmented.levels_used == 6
    assert "6 levels" in transition(curve).segmented.reason


def test_the_loss_has_no_collapse_in_points():
    found = transition(make(truth.hinge(truth.NINE), value="loss"))
    assert found.collapse_point.value is None
    assert "no meaning" in found.collapse_point.reason
    assert found.collapse_sd.value is not None


def test_spreads_are_drawn_together():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 9)) * np.r_[np.ones(8), 4]
    spread_L = level_spread(truth.curve_of(scores))
    assert spread_L[-1] / spread_L[:-1].mean() == pytest.approx(4, rel=0.2)
    few = level_spread(truth.curve_of(scores[:2]))
    assert np.ptp(few[:-1]) < 1.5


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_give_points_and_say_what_is_missing(seeds):
    found = transition(make(truth.hinge(truth.NINE), seeds=seeds))
    assert is_plain(found)
    assert found.collapse_point.value is not None
    if seeds == 1:
        assert "one seed" in found.collapse_point.reason
        assert found.phases.reason


def test_the_same_seed_gives_the_same_transition():
    curve = make(truth.hinge(truth.NINE))
    assert transition(curve, seed=1) == transition(curve, seed=1)


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.integers(1, 4),
    levels=st.integers(1, 9),
    gaps=st.floats(0, 1),
    coarse=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_nothing_is_ever_nan(seeds, levels, gaps, coarse, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.8, 0.05, (seeds, levels + 1))
    scores = np.round(scores, 1) if coarse else scores
    scores[rng.random(scores.shape) < gaps] = np.nan
    x_L = np.linspace(0, 0.8, levels + 1)[1:]
    curve = truth.curve_of(scores, x_L, majority=0.5)
    assert is_plain(transition(curve))
    assert is_plain(truth.gain(curve))


def test_holm_is_statsmodels_holm():
    p_values = np.random.default_rng(0).random(9) ** 3
    assert holm(list(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_shared_variance_joins_the_seeds():
    alone = mean_interval([1.0, 2.0, 4.0])
    wide = mean_interval([1.0, 2.0, 4.0], extra=1.0)
    assert wide.standard_error == pytest.approx((alone.standard_error**2 + 1) ** 0.5)
    assert wide.df > alone.df
    assert joined(2.0, 4, 0.0) == pytest.approx((2**0.5, 4))
