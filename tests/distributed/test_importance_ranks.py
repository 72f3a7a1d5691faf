import numpy as np
import pytest
from groups import launch
from importance_rank import score_shard

from bigtickets.study.spec import TicketsSpec
from bigtickets.tickets.scores import load_scores
from bigtickets.tickets.selection import select

WEIGHTS = {"heads": 1056, "neurons": 65, "blocks": 4192}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scores of the same examples from 1, 2 and 4 ranks."""
    folder = tmp_path_factory.mktemp("scores")
    score_shard(folder, ranks=1, rank=0, sum_in_place=lambda flat: flat)
    for ranks in (2, 4):
        launch("importance_rank.py", ranks, folder)
    return folder


def tickets(scores, units):
    spec = TicketsSpec(units=units)
    normalized = scores.normalized("layer")
    chosen = [select(normalized, WEIGHTS, spec, "winning", ratio, 0) for ratio in spec.ratios]
    return [mask.tobytes() for each in chosen for mask in each.kept.values()]


@pytest.mark.distributed
@pytest.mark.parametrize("granularity", ["example", "token", "square"])
def test_ranks_do_not_matter(folder, granularity):
    one, two, four = (load_scores(folder / f"{granularity}-{ranks}") for ranks in (1, 2, 4))
    for other in (two, four):
        assert other.count == one.count == 13
        for unit in WEIGHTS:
            np.testing.assert_allclose(other.mean()[unit], one.mean()[unit], rtol=1e-5)
            np.testing.assert_allclose(
                other.standard_error()[unit], one.standard_error()[unit], rtol=1e-5
            )
        for units in (("heads", "neurons"), ("heads", "blocks")):
            assert tickets(other, units) == tickets(one, units)
