"""Checkpoints are whole or not there; a damaged one is never taken for a fresh start."""

from pathlib import Path

import pytest
import torch

from bigtickets.errors import DamagedError
from bigtickets.training import checkpoints
from bigtickets.training.tensor_files import stream


def write(work: Path, attempt: int, *steps: int) -> None:
    for step in steps:
        tensors = {"weight.a": torch.full((3,), float(step))}
        checkpoints.save(work / f"attempt-{attempt}", step, stream(tensors), {"step": step})


def test_round_trip_and_only_two_stay(tmp_path: Path) -> None:
    write(tmp_path, 1, 5, 10, 15)
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert (found.step, found.counters) == (15, {"step": 15})
    assert torch.equal(found.tensor("weight.a"), torch.full((3,), 15.0))
    left = sorted(p.name for p in (tmp_path / "attempt-1" / "checkpoints").iterdir())
    assert left == ["step-00000010", "step-00000015"]


def test_none_written_is_a_fresh_start(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None


def test_a_later_attempt_goes_on_from_an_earlier_one(tmp_path: Path) -> None:
    write(tmp_path, 1, 5, 10)
    write(tmp_path, 2, 15)
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.path.parent.parent.name == "attempt-2"
    assert len(list(tmp_path.glob("*/checkpoints/step-*"))) == 2


def test_a_half_written_one_is_not_seen(tmp_path: Path) -> None:
    write(tmp_path, 1, 5)
    (tmp_path / "attempt-1" / "checkpoints" / "step-00000010.tmp").mkdir()
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.step == 5


@pytest.mark.parametrize("damage", ["cut", "flip", "no manifest"])
def test_a_damaged_one_is_passed_over_and_said(tmp_path: Path, damage: str, capsys) -> None:
    write(tmp_path, 1, 5, 10)
    hurt(tmp_path / "attempt-1" / "checkpoints" / "step-00000010", damage)
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.step == 5
    assert "damaged" in capsys.readouterr().err


def test_none_whole_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, 1, 5)
    hurt(tmp_path / "attempt-1" / "checkpoints" / "step-00000005", "flip")
    with pytest.raises(DamagedError, match="none is whole"):
        checkpoints.newest(tmp_path)


def test_a_pointer_without_checkpoints_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, 1, 5)
    import shutil

    shutil.rmtree(tmp_path / "attempt-1")
    with pytest.raises(DamagedError):
        checkpoints.newest(tmp_path)


def hurt(folder: Path, damage: str) -> None:
    state = folder / checkpoints.STATE
    data = bytearray(state.read_bytes())
    if damage == "cut":
        state.write_bytes(data[:-1])
    elif damage == "flip":
        data[-1] ^= 1
        state.write_bytes(data)
    else:
        (folder / checkpoints.MANIFEST).unlink()
