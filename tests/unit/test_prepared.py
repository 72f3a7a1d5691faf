"""A rank on a machine that does not share the run folder is told so."""

from pathlib import Path

import pytest
import torch

from bigtickets.errors import InputError
from bigtickets.running.steps.prepared import _check_same
from bigtickets.training.ranks import Ranks


class Second(Ranks):
    """A rank whose first one says `told`."""

    told: object = None

    def from_first(self, value: object) -> object:
        return self.told


@pytest.mark.parametrize("told", [["other", "ticket"], ["digest", None], ["digest", "older"]])
def test_other_files_than_the_first_ranks_are_refused(told: list, tmp_path: Path) -> None:
    ranks = Second(1, 2, torch.device("cpu"))
    object.__setattr__(ranks, "told", told)
    with pytest.raises(InputError, match=r"rank 1 on .* sees other files .*run"):
        _check_same(ranks, tmp_path / "run" / "data" / "id", "digest", "ticket")
    object.__setattr__(ranks, "told", ["digest", "ticket"])
    _check_same(ranks, tmp_path / "run" / "data" / "id", "digest", "ticket")
