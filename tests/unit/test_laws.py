"""The law over model sizes, and over amounts of data."""

import numpy as np
import pandas as pd
import pytest
from _known_truth import is_at_least, is_at_most, is_plain, truth

from bigtickets.analysis.statistics.collapse import data_collapse
from bigtickets.analysis.statistics.gain import gain
from bigtickets.analysis.statistics.law_points import DATA, SIZE, LawPoint, points_of
from bigtickets.analysis.statistics.law_tests import mixed_slope, permutation_test
from bigtickets.analysis.statistics.laws import log_law
from bigtickets.analysis.statistics.transition import transition
from bigtickets.analysis.statistics.trend import crossed_slope
from bigtickets.errors import InputError


def test_no_size_effect_is_not_found():
    claimed, covered, *_ = truth.check_sizes(25, 1, 0.0, 6, 8, 0.003, 0.003)
    assert is_at_most(claimed, 0.05)
    assert is_at_least(covered, 0.95)


def test_a_size_effect_is_found():
    claimed, covered, bootstrap, *_ = truth.check_sizes(12, 2, 0.01, 6, 8, 0.003, 0.003)
    assert claimed.value > 0.9
    assert is_at_least(covered, 0.95)
    assert is_at_least(bootstrap, 0.88)


def points(values, models=("small", "middle", "large"), tasks=("a", "b")):
    return [
        LawPoint(model, 10 ** (6 + m), task, values[t][m], 0.001, 4.0)
        for t, task in enumerate(tasks)
        for m, model in enumerate(models)
    ]


def test_one_size_claims_nothing():
    law = log_law(points([[0.1], [0.2]], models=("only",)), "gain")
    assert (law.kind, law.found, law.slope.value) == ("none", False, None)
    assert law.reason
    assert is_plain(law)


def test_two_sizes_are_a_difference():
    law = log_law(points([[0.1, 0.3], [0.2, 0.41]], models=("small", "large")), "gain")
    assert law.kind == "difference"
    assert law.slope.value == pytest.approx(0.205)
    assert law.found
    assert "not a trend" in law.note
    assert is_plain(law)


def test_two_sizes_and_one_task_rest_on_the_seeds():
    one = points([[0.1, 0.3]], models=("small", "large"), tasks=("a",))
    law = log_law(one, "gain")
    assert law.slope.standard_error == pytest.approx(0.001 * 2**0.5)
    assert law.slope.df == pytest.approx(8)
    bare = [LawPoint(p.setting, p.amount, p.block, p.value) for p in one]
    assert "no standard errors" in log_law(bare, "gain").slope.reason


def test_values_that_do_not_exist_are_named_and_not_filled_in():
    law = log_law(
        [
            *points([[0.1, 0.2, 0.3], [0.1, 0.3, 0.4]]),
            LawPoint("huge", 10**9, "a", None, reason="why"),
        ],
        "collapse_sd",
    )
    assert law.left_out == (("huge", "a", "why"),)
    assert law.settings == ("small", "middle", "large")
    assert law.kind == "trend"
    assert is_plain(law)


def test_the_slope_is_least_squares_with_task_effects():
    known = truth.points_with(np.random.default_rng(0), 0.01, 5, 4, 0.003, 0.003)
    law = log_law(known, "gain")
    assert law.slope.value == pytest.approx(law.bootstrap.value)
    assert law.slope.value == pytest.approx(law.mixed.value)
    assert law.note == "tasks as random intercepts"
    assert log_law(known, "gain") == law


def frame_of(known):
    rows = [(p.setting, np.log10(p.amount), p.block, p.value, np.nan, np.nan) for p in known]
    return pd.DataFrame(rows, columns=["setting", "amount", "block", "value", "error", "df"])


def test_all_permutations_of_few_models():
    values = [[0.0, 1.0, 2.0, 3.0, 4.0]]
    one = points(values, models=tuple("abcde"), tasks=("a",))
    p_value, smallest = permutation_test(frame_of(one), 0)
    assert p_value == smallest == pytest.approx(2 / 120)
    p_value, smallest = permutation_test(frame_of(points([[0.0, 1.0, 3.0]], tasks=("a",))), 0)
    assert p_value == smallest == pytest.approx(2 / 6)


def test_many_models_are_sampled():
    models = tuple(f"m{i}" for i in range(9))
    one = points([list(range(9))], models=models, tasks=("a",))
    assert permutation_test(frame_of(one), 0)[0] < 0.01
    assert permutation_test(frame_of(one), 0, within_blocks=True)[0] < 0.01


def test_a_mixed_model_that_does_not_fit_falls_back_and_says_so():
    flat = frame_of(points([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]))
    slope, note = mixed_slope(flat, SIZE, 0.95)
    assert slope.value == pytest.approx(0.1)
    assert note.startswith("tasks as fixed effects") or note == "tasks as random intercepts"
    one, note = mixed_slope(flat[flat["block"] == "a"], SIZE, 0.95)
    assert one.value == pytest.approx(0.1)
    assert note == "one task: ordinary least squares"


def test_a_model_off_the_trend_widens_the_interval():
    rng = np.random.default_rng(0)
    plain = frame_of(truth.points_with(rng, 0.01, 6, 8, 0.0, 0.0))
    shifted = plain.assign(value=plain["value"] + 0.02 * (plain["setting"] == "m3"))
    assert (
        crossed_slope(shifted, SIZE, 0.95).standard_error
        > 2 * crossed_slope(plain, SIZE, 0.95).standard_error
    )


def by_share(values, models=("L3", "L6")):
    """Points of models at a 64th, an 8th and all of 6,400 examples."""
    return [
        LawPoint(repr(share), 6400 * share, model, value, 0.001, 4.0)
        for model, of_model in zip(models, values, strict=True)
        for share, value in zip((1 / 64, 1 / 8, 1.0)[-len(of_model) :], of_model, strict=True)
    ]


def test_a_law_over_amounts_of_data_has_models_as_its_random_effect():
    step = np.log10(8)
    line = -0.5 * step * np.arange(3)
    falling = [4 + line + [0.0, 1e-3, 0.0], 9 + line]
    law = log_law(by_share(falling), "sharpness", DATA)
    assert law.slope.value == pytest.approx(-0.5, abs=0.002)
    assert law.slope.method == "t over shares of the data and models"
    assert law.found
    assert law.settings == ("0.015625", "0.125", "1.0")
    assert law.blocks == ("L3", "L6")
    assert law.p_permutation == law.p_smallest == pytest.approx(1 / 3)
    assert law.bootstrap.reason == "fewer than four models: no bootstrap over them"
    assert is_plain(law)


def test_two_shares_are_a_difference_and_one_is_nothing():
    law = log_law(by_share([[4.0, 3.0], [9.0, 8.1]]), "sharpness", DATA)
    assert (law.kind, law.p_permutation) == ("difference", None)
    assert law.slope.value == pytest.approx(-0.95)
    assert "two amounts of data" in law.note
    assert "not a trend" in law.note
    none = log_law(by_share([[4.0], [9.0]]), "sharpness", DATA)
    assert none.reason == "fewer than two amounts of data have a value"
    assert (none.kind, none.found) == ("none", False)


def test_data_that_change_nothing_claim_nothing():
    rng = np.random.default_rng(3)
    laws = [
        log_law(by_share(rng.normal(0, 1, (4, 3)), models=tuple("abcd")), "gain", DATA, seed=i)
        for i in range(60)
    ]
    claimed = truth.share("no effect of the data: claimed", [law.found for law in laws])
    assert is_at_most(claimed, 0.05)
    covered = truth.share("covered", [truth.covers(law.slope, 0.0) for law in laws])
    assert is_at_least(covered, 0.95)


def test_quantities_of_results():
    curve = truth.curve_of(truth.noisy(np.random.default_rng(0), truth.hinge(truth.NINE), 5, 0.002))
    (point,) = points_of([gain(curve)], "gain")
    assert point.standard_error is not None
    assert point.df is not None
    fallen = transition(curve)
    assert points_of([fallen], "collapse_sd")[0].value == fallen.collapse_sd.value
    if fallen.logistic.width.value:
        sharp = points_of([fallen], "sharpness")[0]
        assert sharp.value == pytest.approx(1 / fallen.logistic.width.value)
    flat = truth.curve_of(truth.noisy(np.random.default_rng(0), truth.FLAT, 5, 0.002))
    missing = points_of([transition(flat)], "collapse_sd")[0]
    assert missing.value is None
    assert missing.reason
    with pytest.raises(InputError, match="not a quantity of Gain"):
        points_of([gain(curve)], "sharpness")
    with pytest.raises(InputError, match="not one of"):
        points_of([gain(curve)], "loss")


def test_data_collapse_finds_the_scaling_that_was_put_in():
    rng = np.random.default_rng(0)
    curves = []
    for size in (6, 6.5, 7, 7.5, 8):
        scaled = (truth.NINE - 0.5) * (10 ** (size - 7)) ** 0.3
        scores = truth.noisy(rng, -0.2 / (1 + np.exp(-scaled / 0.1)), 5, 0.002)
        curves.append(truth.curve_of(scores, model=str(size), parameters=round(10**size)))
    found = data_collapse(curves)
    assert found.exploratory
    assert found.exponent == pytest.approx(0.3, abs=0.11)
    assert found.center == pytest.approx(0.5, abs=0.05)
    assert found.quality < found.quality_unscaled
    assert found.quality < found.null_quality
    assert found.p_value <= 0.05
    assert is_plain(found)


def test_data_collapse_needs_three_sizes_of_one_task():
    curve = truth.curve_of(truth.noisy(np.random.default_rng(0), truth.FLAT, 3))
    assert data_collapse([curve]).reason == "fewer than three sizes"
    assert data_collapse([]).exponent is None
