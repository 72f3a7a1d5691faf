"""TensorBoard's view of a study while it runs: current, at a pace, by one process at a time."""

import threading
import time
from pathlib import Path

import pytest

from bigtickets.analysis import tensorboard
from bigtickets.errors import InputError
from bigtickets.files import write_json
from bigtickets.running.watching import view
from bigtickets.study.claims import Claims
from bigtickets.study.folder import RunFolder


class Writer:
    """Stands for the writing of the view; counts how often it was called, and at once."""

    def __init__(self) -> None:
        self.calls = self.inside = self.most = 0

    def __call__(self, folder: RunFolder) -> None:
        self.calls += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.2)
        self.inside -= 1


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    made = Writer()
    monkeypatch.setattr(tensorboard, "write_study_view", made)
    return made


def stamp(folder: RunFolder, ago_s: float, seconds: float) -> None:
    write_json(folder.tb / ".view" / "stamp.json", {"at": time.time() - ago_s, "seconds": seconds})


def test_the_pace_grows_with_the_cost(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert view.due(folder)
    stamp(folder, ago_s=100, seconds=1)
    assert not view.due(folder)
    stamp(folder, ago_s=200, seconds=1)
    assert view.due(folder)
    # One that takes 20 s is written every 400 s: a twentieth of the time.
    stamp(folder, ago_s=200, seconds=20)
    assert not view.due(folder)


def test_of_many_that_want_to_write_one_does(tmp_path: Path, writer: Writer) -> None:
    folder = RunFolder(tmp_path)
    threads = [threading.Thread(target=view.refresh, args=(folder,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (writer.calls, writer.most) == (1, 1)
    assert not view.refresh(folder)
    assert [path.name for path in (folder.tb / ".view").iterdir()] == ["stamp.json"]


def test_a_dead_writer_holds_nobody_up(tmp_path: Path, writer: Writer) -> None:
    folder = RunFolder(tmp_path)
    claim = Claims(folder.tb / ".view", "dead").take("view")
    assert claim is not None
    assert not view.refresh(folder), "its process, this one, lives"
    path = folder.tb / ".view" / "view.1"
    path.write_text(path.read_text().replace(str(claim.started), "1.0"))
    assert view.refresh(folder)


def test_before_the_first_trial_there_is_nothing_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(folder: RunFolder) -> None:
        raise InputError("no trial has finished")

    monkeypatch.setattr(tensorboard, "write_study_view", nothing)
    assert not view.refresh(RunFolder(tmp_path))
    assert view.due(RunFolder(tmp_path))
