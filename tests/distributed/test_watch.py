"""Silence becomes an end with a reason: nobody waits for a rank that hangs."""

from pathlib import Path

import pytest
from groups import launch

from bigtickets.training.watch import SILENCE, STALL


@pytest.mark.distributed
def test_a_rank_that_does_not_get_on_ends_the_group(tmp_path: Path) -> None:
    stderr = launch("stall_rank.py", 2, tmp_path, code=1, **{SILENCE: "60", STALL: "8"})
    assert "has made no step for 8 s; this rank ends" in stderr
    assert 'stall_rank.py", line' in stderr, "no word on where it hangs"
    said = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert any("has made no step" in text for text in said.values())
