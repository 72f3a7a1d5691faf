"""Means with intervals over seeds, and the axis that the figures share."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bigtickets.analysis.sections.means import mean_scores, score_limits

SCORES = {0.0: [0.80, 0.82, 0.84], 0.5: [0.70, 0.75, 0.71]}


def trials(scores: dict[float, list[float]] = SCORES) -> pd.DataFrame:
    rows = [
        {
            "model": "m",
            "task": "t",
            "data_fraction": 1.0,
            "kind": "winning" if ratio else "dense",
            "ratio": ratio,
            "seed": seed,
            "score": score,
            "parameters": 10,
            "metric": "accuracy",
            "x": ratio,
            "x_model": ratio / 2,
            "x_flops": ratio,
            "majority_score": 0.5,
            "degenerate": None,
        }
        for ratio, values in scores.items()
        for seed, score in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_student_t_over_seeds() -> None:
    level = mean_scores(trials()).iloc[1]
    low, high = stats.t.interval(0.95, 2, np.mean(SCORES[0.5]), stats.sem(SCORES[0.5]))
    assert (level["n"], level["mean"]) == (3, pytest.approx(0.72))
    assert (level["low"], level["high"]) == (pytest.approx(low), pytest.approx(high))


def test_difference_is_paired_by_seed() -> None:
    level = mean_scores(trials()).iloc[1]
    paired = np.subtract(SCORES[0.5], SCORES[0.0])
    low, high = stats.t.interval(0.95, 2, paired.mean(), stats.sem(paired))
    assert level["difference"] == pytest.approx(paired.mean())
    assert level["difference_low"] == pytest.approx(low)
    assert level["difference_high"] == pytest.approx(high)
    assert level["pairs"] == 3


def test_one_seed_has_no_interval() -> None:
    level = mean_scores(trials({0.0: [0.8], 0.5: [0.7]})).iloc[1]
    assert level["mean"] == 0.7
    assert np.isnan([level["low"], level["high"], level["difference_low"]]).all()
    assert level["difference"] == pytest.approx(-0.1)


def test_without_a_dense_model_there_is_no_difference() -> None:
    level = mean_scores(trials({0.5: [0.7, 0.6]})).iloc[0]
    assert level["pairs"] == 0
    assert np.isnan(level["difference"])


def test_a_trial_without_a_score_is_left_out_of_the_mean_and_counted() -> None:
    level = mean_scores(trials({0.0: [0.8, 0.8], 0.5: [0.7, np.nan]})).iloc[1]
    assert (level["trials"], level["n"], level["mean"]) == (2, 1, 0.7)


def test_degenerate_trials_stay_in() -> None:
    table = trials()
    table.loc[5, "degenerate"] = "majority"
    level = mean_scores(table).iloc[1]
    assert (level["degenerate"], level["n"]) == (1, 3)


def test_limits_show_every_trial_but_not_every_interval() -> None:
    table = trials({0.0: [0.8, 0.8], 0.5: [0.7, 0.5]})
    low, high = score_limits(mean_scores(table), table)
    assert low < 50 < 80 < high
    assert low > 0  # the interval of two seeds reaches far below


def test_limits_of_a_single_value() -> None:
    table = trials({0.0: [0.5]})
    low, high = score_limits(mean_scores(table), table)
    assert low < 50 < high
