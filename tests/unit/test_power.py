"""Seeds needed, and the null gain that noise alone gives."""

import numpy as np
import pytest
from _known_truth import is_at_least, truth

from bigtickets.analysis.statistics.power import expected_null_gain, half_width, seeds_needed
from bigtickets.errors import InputError


def test_the_seeds_asked_for_reach_the_precision():
    for result in truth.check_power(2000, 1):
        assert is_at_least(result, float(result.asked.split()[1]) / 100)


def test_no_fewer_seeds_would_do():
    for precision in (0.3, 0.1, 0.03):
        need = seeds_needed(precision, 0.2, levels=4, assurance=0.8)
        assert need.half_width <= precision
        if need.seeds > 2:
            assert half_width(need.seeds - 1, 0.2, 4, 0.95, 0.8) > precision


def test_more_levels_confidence_and_assurance_need_more_seeds():
    least = seeds_needed(0.01, 0.01).seeds
    assert seeds_needed(0.01, 0.01, levels=8).seeds > least
    assert seeds_needed(0.01, 0.01, confidence=0.99).seeds > least
    assert seeds_needed(0.01, 0.01, assurance=0.9).seeds > least
    assert seeds_needed(10.0, 0.01).seeds == 2


@pytest.mark.parametrize(("seeds", "gain"), [(1, 1.15), (3, 0.66), (5, 0.52), (10, 0.37)])
def test_the_null_gain_is_that_of_the_largest_of_normals(seeds, gain):
    drawn = np.random.default_rng(0).normal(size=(20_000, 8)).max(1).mean() / seeds**0.5
    assert expected_null_gain(1.0, seeds, 8) == pytest.approx(drawn, rel=0.02)
    assert expected_null_gain(0.81, seeds, 8) == pytest.approx(gain, rel=0.03)


def test_impossible_wishes_are_refused():
    for wrong in ({"precision": 0.0}, {"sd_paired": -1.0}, {"confidence": 1.0}, {"levels": 0}):
        with pytest.raises(InputError):
            seeds_needed(**({"precision": 0.1, "sd_paired": 0.1} | wrong))
    with pytest.raises(InputError, match="more than 10000 seeds"):
        seeds_needed(1e-9, 1.0)
