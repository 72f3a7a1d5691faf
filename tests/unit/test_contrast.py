"""Winning tickets against the controls."""

import numpy as np
import pytest
from _known_truth import is_at_least, is_at_most, is_plain, table_of, truth

from bigtickets.analysis.statistics.contrast import contrast, contrasts
from bigtickets.errors import InputError


def test_kinds_that_do_not_differ_are_not_told_apart():
    any_level, area = truth.check_contrast(150, 1)
    assert is_at_most(any_level, 0.05)
    assert is_at_least(area, 0.95)


def test_a_difference_is_paired_by_seed_and_adjusted_over_the_levels():
    rng = np.random.default_rng(0)
    scores = {}
    for s in range(5):
        base = rng.normal(0.8, 0.05)
        for ratio, gap in ((0.2, 0.0), (0.4, 0.03)):
            scores["winning", ratio, s] = base + rng.normal(0, 0.002)
            scores["random", ratio, s] = base - gap + rng.normal(0, 0.002)
        scores["dense", 0.0, s] = base
    (found,) = contrasts(table_of(scores), pairs=(("winning", "random"), ("winning", "losing")))
    equal, better = found.levels
    assert better.difference.value == pytest.approx(0.03, abs=0.004)
    assert better.p_adjusted < 0.01
    assert equal.difference.low < 0 < equal.difference.high
    assert all(level.p_adjusted >= level.p_value for level in found.levels)
    assert found.area.value == pytest.approx(0.015, abs=0.004)
    assert (found.seeds, found.size_gap, found.correction) == (5, 0.0, "holm")
    assert is_plain(found)


def test_only_common_levels_and_seeds_count():
    scores = {("dense", 0.0, s): 0.8 for s in range(3)}
    scores |= {("winning", r, s): 0.8 + s / 100 for r in (0.2, 0.4) for s in range(3)}
    scores |= {("random", 0.2, s): 0.7 for s in (0, 1)}
    (found,) = contrasts(table_of(scores), pairs=(("winning", "random"),))
    assert [level.ratio for level in found.levels] == [0.2]
    assert (found.seeds, found.missing) == (2, 1)
    assert found.area.value is None
    assert is_plain(found)


def test_curves_of_two_cells_are_refused():
    rng = np.random.default_rng(0)
    first = truth.curve_of(truth.noisy(rng, truth.FLAT, 3))
    with pytest.raises(InputError, match="not the same"):
        contrast(first, truth.curve_of(truth.noisy(rng, truth.FLAT, 3), task="other"))
