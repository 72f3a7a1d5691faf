"""Scores, tickets and losses are the same at every ZeRO stage, on 1, 2 and 4 ranks.

Each number of ranks is one launched group that goes through all stages, as a worker does.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from groups import launch, sharing_all
from matrix_rank import FEW, ways
from small_study import write_data, write_model, write_study

from bigtickets.running.single import Wanted, run_single
from bigtickets.study.spec import TicketsSpec
from bigtickets.tickets.scores import load_scores
from bigtickets.tickets.selection import select

pytestmark = pytest.mark.distributed
ROWS = 14  # no multiple of 2 x 4 or of 4 x 4
REFERENCE = "zero0-4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every way gave on 1, 2 and 4 ranks; a reference run made the ticket."""
    root = tmp_path_factory.mktemp("matrix")
    write_model(root / "model")
    write_data(root / "data", rows=ROWS)
    path = write_study(
        root,
        tickets={"ratios": [0, 0.5], "kinds": ["winning"]},
        importance={"at": "pretrained"},
        training={"max_steps": 3, "learning_rate": 1e-3, "batch_size": 6, "max_length": 24},
        seeds=[0],
    )
    run_single(path, root / "run", "ticket", Wanted(kind="winning", ratio=0.5))
    sharing_all(root)
    for ranks in (1, 2, 4):
        launch("matrix_rank.py", ranks, root, cwd=root)
    return root


def tickets(scores) -> list[bytes]:
    """The winning tickets of every ratio."""
    spec, normalized = TicketsSpec(), scores.normalized("layer")
    weights = {"heads": 1056, "neurons": 65}
    cut = [select(normalized, weights, spec, "winning", ratio, 0) for ratio in spec.ratios]
    return [mask.tobytes() for each in cut for mask in each.kept.values()]


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", ways())
def test_scores_tickets_and_losses_are_those_of_one_process(
    folder: Path, ranks: int, name: str
) -> None:
    one, other = folder / "1" / REFERENCE, folder / str(ranks) / name
    for part, count in (("scores", ROWS), ("few", FEW)):
        expected = load_scores(one / f"{part}.safetensors")
        found = load_scores(other / f"{part}.safetensors")
        assert found.count == expected.count == count
        for unit, mean_LN in expected.mean().items():
            np.testing.assert_allclose(found.mean()[unit], mean_LN, rtol=1e-5)
        assert tickets(found) == tickets(expected)
    expected, found = (json.loads((f / "facts.json").read_text()) for f in (one, other))
    assert len(expected["dense"]) == len(expected["pruned"]) == 3
    assert expected["dense"] != expected["pruned"]
    for part in ("dense", "pruned"):
        np.testing.assert_allclose(found[part], expected[part], rtol=1e-5)
