"""Agreement of masks over seeds."""

import numpy as np
import pytest
from _known_truth import is_plain

from bigtickets.analysis.statistics.agreement import agreement, krippendorff_alpha, pairwise_iou
from bigtickets.errors import InputError


def test_alpha_of_krippendorffs_own_example():
    # "Computing Krippendorff's Alpha-Reliability" (2011), binary data, two observers.
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(np.array([first, second], bool)) == pytest.approx(0.095, abs=5e-4)


def test_equal_masks_agree_fully_and_full_ones_have_no_alpha():
    kept_LN = np.random.default_rng(0).random((4, 12)) < 0.6
    (found,) = agreement([{"heads": kept_LN}] * 3)
    assert (found.alpha.value, found.iou_all, found.iou_pairs.value) == (1.0, 1.0, 1.0)
    assert found.kept == kept_LN.sum()
    (full,) = agreement([{"heads": np.ones((2, 3), bool)}] * 3)
    assert full.alpha.value is None
    assert full.alpha.reason
    assert full.iou_all == 1.0
    assert is_plain([found, full])


def test_iou_by_hand():
    kept_SU = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]], bool)
    assert pairwise_iou(kept_SU) == pytest.approx((1 / 3 + 2 / 3 + 2 / 3) / 3)
    (found,) = agreement([{"heads": row[None]} for row in kept_SU])
    assert found.iou_all == pytest.approx(1 / 3)


def test_random_masks_agree_by_chance():
    rng = np.random.default_rng(0)
    masks = [{"neurons": rng.random((6, 500)) < 0.7} for _ in range(5)]
    (found,) = agreement(masks)
    assert found.alpha.value == pytest.approx(0, abs=0.03)
    assert found.iou_pairs.value == pytest.approx(found.iou_chance, abs=0.01)
    assert found.alpha.low < 0 < found.alpha.high


def test_one_interval_for_each_type_and_none_for_few_seeds():
    rng = np.random.default_rng(0)
    masks = [{"heads": rng.random((2, 4)) < 0.5, "neurons": rng.random((2, 9)) < 0.5} for _ in "ab"]
    found = agreement(masks)
    assert [one.unit for one in found] == ["heads", "neurons"]
    assert all("three seeds" in one.alpha.reason for one in found if one.alpha.value is not None)
    (single,) = agreement([{"heads": np.array([[True, False]])}])
    assert single.reason
    assert is_plain([*found, single])
    assert agreement([]) == ()


def test_masks_of_two_models_are_refused():
    with pytest.raises(InputError, match="shapes differ"):
        agreement([{"heads": np.ones((2, 3), bool)}, {"heads": np.ones((2, 4), bool)}])
