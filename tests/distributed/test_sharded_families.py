"""Sharded over two ranks: every family's scores and losses, and training that changes its stage."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from groups import launch, sharing_all

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from tiny_models import FAMILIES, tiny

pytestmark = pytest.mark.distributed
TEXT = [family for family in FAMILIES if family != "vit"]


def test_every_family_is_the_same_when_it_is_sharded(tmp_path: Path) -> None:
    for family in TEXT:
        tiny(family, dtype=torch.float32).save_pretrained(tmp_path / "models" / family)
    out = tmp_path / "found.json"
    launch("families_rank.py", 2, tmp_path / "models", sharing_all(tmp_path)[0], out)
    found = json.loads(out.read_text())
    assert set(found) == set(TEXT)
    for family, (whole, sharded) in found.items():
        assert whole["losses"][1] < whole["losses"][0], family
        np.testing.assert_allclose(sharded["losses"], whole["losses"], rtol=1e-5, err_msg=family)
        for unit in ("heads", "neurons"):
            # The least scores are differences of large numbers.
            least = 1e-6 * max(whole[unit])
            np.testing.assert_allclose(
                sharded[unit], whole[unit], rtol=1e-5, atol=least, err_msg=f"{family} {unit}"
            )


def test_training_goes_on_at_another_stage(tmp_path: Path) -> None:
    tiny("bert", dtype=torch.float32).save_pretrained(tmp_path / "model")
    out = tmp_path / "found.json"
    launch("resume_rank.py", 2, tmp_path / "model", *sharing_all(tmp_path), out)
    found = json.loads(out.read_text())
    through = found.pop("through")
    assert found.pop("alive") == [], "models that closed engines keep"
    assert len(found) == 5
    assert through[3] < through[0]
    for pair, losses in found.items():
        np.testing.assert_allclose(losses, through, rtol=1e-5, err_msg=pair)
