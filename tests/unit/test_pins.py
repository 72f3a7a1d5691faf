"""A Hub model is what its commit says, however far its branch has moved."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bigtickets.errors import InputError
from bigtickets.running.prefetch import fetch_hub_models
from bigtickets.study.folder import RunFolder
from bigtickets.study.pins import pinned, pinned_as_before
from bigtickets.study.reader import read_study
from bigtickets.study.spec import StudySpec
from bigtickets.study.steps import expand
from bigtickets.study.writer import study_text

OLD, NEW = "a" * 40, "b" * 40


def write_study(folder: Path, **model: str) -> Path:
    path = folder / "study.yaml"
    spec = {"study": "s", "models": [{"name": "m", "path": "org/model", **model}], "tasks": ["rte"]}
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds two commits of one model; `main` is the old one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--org--model"
    for commit in (OLD, NEW):
        folder = repository / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "bert"}')
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(OLD)
    return repository


def started(folder: RunFolder, study: StudySpec) -> StudySpec:
    """What a start does to a study, up to writing it."""
    study = pinned_as_before(study, folder)
    study = pinned(study, fetch_hub_models(study.models, lambda text: None))
    folder.root.mkdir(exist_ok=True)
    folder.study_yaml.write_text(study_text(study, folder.root))
    return study


def test_a_moved_branch_moves_no_study(tmp_path: Path, hub: Path) -> None:
    study = read_study(write_study(tmp_path))
    first = started(RunFolder(tmp_path / "run"), study)
    assert first.models[0].revision == OLD
    assert first.models[0].identity == f"hub:org/model@{OLD}"
    (hub / "refs" / "main").write_text(NEW)
    assert started(RunFolder(tmp_path / "run"), study) == first
    assert read_study(tmp_path / "run" / "study.yaml").models == first.models
    other = started(RunFolder(tmp_path / "another"), study)
    assert other.models[0].revision == NEW
    assert not {s.id for s in expand(other)} & {s.id for s in expand(first)}


def test_a_revision_that_is_asked_for_is_taken(tmp_path: Path, hub: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    started(folder, read_study(write_study(tmp_path)))
    asked = started(folder, read_study(write_study(tmp_path, revision=NEW)))
    assert asked.models[0].revision == NEW


def test_another_model_under_the_same_name_is_not_pinned(tmp_path: Path, hub: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    study = started(folder, read_study(write_study(tmp_path)))
    other = replace(study, models=(replace(study.models[0], path="org/other", revision=None),))
    assert pinned_as_before(other, folder) == other


def test_a_model_that_is_nowhere(tmp_path: Path, hub: Path) -> None:
    study = read_study(write_study(tmp_path))
    absent = (replace(study.models[0], path="org/absent"),)
    with pytest.raises(InputError, match="org/absent can't be had"):
        fetch_hub_models(absent, lambda text: None)
