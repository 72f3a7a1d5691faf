import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtickets.errors import InputError
from bigtickets.study.spec import TicketsSpec
from bigtickets.tickets.selection import select

WEIGHTS = {"heads": 7, "neurons": 3, "blocks": 50}
KINDS = ["winning", "losing", "random", "random_layerwise", "reinit"]
# The same examples on every run, and no verdict on how busy the machine is.
steady = settings(derandomize=True, deadline=None)
RATIOS = [0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 0.99]


def masks(scores, kind="winning", ratio=0.5, seed=0, **spec):
    spec = TicketsSpec(**{"units": tuple(scores), "min_heads": 0, "min_neurons": 0, **spec})
    return select(scores, WEIGHTS, spec, kind, ratio, seed)


@st.composite
def some_scores(draw):
    """Scores of up to 4 layers; whole numbers, so that ties are common."""
    layers = draw(st.integers(1, 4))
    third = draw(st.sampled_from([("neurons", 7), ("blocks", 1)]))
    sizes = {"heads": draw(st.integers(1, 4)), third[0]: third[1]}
    numbers = st.integers(0, draw(st.sampled_from([0, 3, 1000])))
    return {
        unit: np.array(
            draw(st.lists(numbers, min_size=layers * size, max_size=layers * size)), float
        ).reshape(layers, size)
        for unit, size in sizes.items()
    }


floors = st.fixed_dictionaries(
    {
        "min_heads": st.integers(0, 2),
        "min_neurons": st.integers(0, 3),
        "budget": st.sampled_from(["per_type", "joint"]),
    }
)


@steady
@given(some_scores(), floors, st.sampled_from(KINDS), st.integers(0, 3))
def test_nested_over_ratios(scores, spec, kind, seed):
    chain = [masks(scores, kind, ratio, seed, **spec).kept for ratio in RATIOS]
    assert all(kept.all() for kept in chain[0].values())
    for more, fewer in itertools.pairwise(chain):
        assert all((more[unit] | ~fewer[unit]).all() for unit in scores)


@steady
@given(some_scores(), floors, st.sampled_from(KINDS), st.sampled_from(RATIOS))
def test_floors_hold_in_every_layer(scores, spec, kind, ratio):
    kept = masks(scores, kind, ratio, **spec).kept
    for unit, floor in (("heads", spec["min_heads"]), ("neurons", spec["min_neurons"])):
        if unit in kept:
            assert (kept[unit].sum(1) >= min(floor, kept[unit].shape[1])).all()


@steady
@given(some_scores(), floors, st.sampled_from(RATIOS))
def test_counts(scores, spec, ratio):
    selections = {kind: masks(scores, kind, ratio, **spec) for kind in KINDS}
    gone = {kind: {u: ~m for u, m in each.kept.items()} for kind, each in selections.items()}
    for unit, score in scores.items():
        floor = {"heads": spec["min_heads"], "neurons": spec["min_neurons"], "blocks": 0}[unit]
        may_go = len(score) * max(score.shape[1] - floor, 0)
        if spec["budget"] == "per_type":
            asked = int(100 * ratio * score.size + 50.5) // 100  # ratios here are whole percents
            for kind in KINDS:
                assert selections[kind].asked[unit] == asked
                assert gone[kind][unit].sum() == min(asked, may_go)
        winning = gone["winning"][unit]
        assert gone["random"][unit].sum() == winning.sum()
        assert (gone["random_layerwise"][unit].sum(1) == winning.sum(1)).all()
        assert (gone["reinit"][unit] == winning).all()


@steady
@given(some_scores(), st.sampled_from(["winning", "losing"]), st.sampled_from(RATIOS))
def test_joint_budget_takes_all_that_it_can_pay(scores, kind, ratio):
    kept = masks(scores, kind, ratio, budget="joint").kept
    limit = round(100 * ratio) * sum(WEIGHTS[unit] * each.size for unit, each in scores.items())
    sign = -1 if kind == "losing" else 1
    ranked = sorted(
        (sign * score / WEIGHTS[unit], number, index, WEIGHTS[unit], unit)
        for number, (unit, each) in enumerate(scores.items())
        for index, score in enumerate(each.flat)
    )
    paid = 0
    for *_, index, weight, unit in ranked:
        paid += weight
        assert kept[unit].flat[index] == (100 * paid > limit)


def test_least_and_most_important():
    scores = {"heads": np.array([[0.4, 0.1], [0.3, 0.2]])}
    assert masks(scores).kept["heads"].tolist() == [[True, False], [True, False]]
    assert masks(scores, "losing").kept["heads"].tolist() == [[False, True], [False, True]]


def test_ties_go_by_index():
    scores = {"heads": np.ones((2, 3))}
    expected = [[False, False, False], [True, True, True]]
    assert masks(scores).kept["heads"].tolist() == expected
    assert masks(scores, "losing").kept["heads"].tolist() == expected
    expected = [[False, False, True], [False, True, True]]
    assert masks(scores, min_heads=1).kept["heads"].tolist() == expected


def test_floors_protect_the_best_of_a_layer_and_cap_the_count():
    scores = {"heads": np.array([[0.1, 0.2, 0.15], [0.5, 0.6, 0.7]])}
    selection = masks(scores, ratio=0.9, min_heads=1)
    assert selection.kept["heads"].tolist() == [[False, True, False], [False, False, True]]
    assert selection.asked == {"heads": 5}


def test_whole_layers_may_go_without_floors():
    scores = {"heads": np.array([[1.0, 1.0], [2.0, 2.0]])}
    assert masks(scores).kept["heads"].any(1).tolist() == [False, True]


@pytest.mark.parametrize(
    ("ratio", "units", "removed"), [(0.5, 5, 3), (0.145, 100, 15), (0.29, 100, 29), (0.1, 4, 0)]
)
def test_halves_go_up_and_decimals_are_exact(ratio, units, removed):
    scores = {"neurons": np.arange(units, dtype=float)[None]}
    assert (~masks(scores, ratio=ratio).kept["neurons"]).sum() == removed


def test_random_depends_on_the_seed_and_on_nothing_else():
    scores = {"heads": np.zeros((4, 6)), "neurons": np.zeros((4, 30))}
    other = {unit: np.random.default_rng(0).random(each.shape) for unit, each in scores.items()}
    first = masks(scores, "random", seed=1).kept
    assert all((first[u] == masks(other, "random", seed=1).kept[u]).all() for u in scores)
    assert any((first[u] != masks(scores, "random", seed=2).kept[u]).any() for u in scores)


def test_random_tickets_are_the_same_on_every_machine():
    scores = {"heads": np.zeros((2, 6)), "neurons": np.zeros((2, 6))}
    kept = masks(scores, "random", seed=7).kept
    found = {unit: np.flatnonzero(kept[unit]).tolist() for unit in scores}
    assert found == {"heads": [0, 1, 2, 5, 7, 9], "neurons": [2, 3, 4, 8, 9, 11]}


def test_random_removes_all_units_alike():
    scores = {"heads": np.zeros((3, 4))}
    often = sum(~masks(scores, "random", seed=seed).kept["heads"] for seed in range(400)) / 400
    assert (abs(often - 0.5) < 0.1).all()  # 4 standard errors


@pytest.mark.parametrize("kind", KINDS)
def test_diverged_scores_are_refused(kind):
    with pytest.raises(InputError, match="diverged"):
        masks({"heads": np.array([[1.0, np.nan]])}, kind)
