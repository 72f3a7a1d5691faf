"""Metric modules in a study file: identity, the copy in the run folder, the Hub's cache."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from metric_scripts import write_f1

from bigtickets.errors import InputError
from bigtickets.running.steps.metric_scripts import keep_scripts
from bigtickets.study.folder import RunFolder
from bigtickets.study.reader import read_study
from bigtickets.study.spec import StudySpec, TaskSpec
from bigtickets.study.state import write_run
from bigtickets.study.steps import expand

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(root: Path, **metric: Any) -> Path:
    """A study of one task with this metric, and its files."""
    (root / "rows.tsv").write_text("words\tmood\ngood\tpos\n")
    path = root / "study.yaml"
    task = {"name": "t", "text": "words", "label": "mood", "metric": metric}
    task |= {"train": "rows.tsv", "validation": "rows.tsv"}
    path.write_text(yaml.safe_dump({"study": "s", "models": ["org/model"], "tasks": [task]}))
    return path


def task_of(root: Path, **metric: Any) -> TaskSpec:
    return read_study(write(root, **metric)).tasks[0]


def test_what_a_mapping_means(tmp_path: Path) -> None:
    write_f1(tmp_path / "my_f1.py")
    task = task_of(tmp_path, module="my_f1.py", result="f1", arguments={"average": "macro"})
    assert task.metric == "module:my_f1.f1"
    assert not task.regression
    assert task.module is not None
    assert (task.module.input, task.module.points) == ("classes", 100.0)
    least = task_of(tmp_path, module="my_f1.py", input="values", lower_is_better=True)
    assert least.metric == "module:minus my_f1"
    assert least.regression


def test_identity_is_the_code_and_how_it_is_called(tmp_path: Path) -> None:
    write_f1(tmp_path / "my_f1.py")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "folder.py").write_text((tmp_path / "my_f1.py").read_text())
    base = {"module": "my_f1.py", "result": "f1"}
    known = task_of(tmp_path, **base).identity
    for same in ({"module": "folder"}, {"points": 1}, {"arguments": {}}, {"input": "classes"}):
        assert task_of(tmp_path, **{**base, **same}).identity == known, same
    others = [{"result": "examples"}, {"arguments": {"average": "macro"}}, {"input": "values"}]
    found = {known}
    for other in [*others, {"lower_is_better": True}]:
        found.add(task_of(tmp_path, **{**base, **other}).identity)
    (tmp_path / "my_f1.py").write_text((tmp_path / "my_f1.py").read_text() + "# changed\n")
    found.add(task_of(tmp_path, **base).identity)
    assert len(found) == 6


def kept(study: StudySpec, folder: RunFolder) -> StudySpec:
    """As it is after `prefetch`."""
    study = keep_scripts(study, folder)
    write_run(study, folder)
    return study


def test_the_run_folder_has_its_own_copy(tmp_path: Path) -> None:
    script = write_f1(tmp_path / "my_f1.py")
    study = read_study(write(tmp_path, module="my_f1.py", result="f1", points=1))
    kept(study, RunFolder(tmp_path / "run"))
    script.write_text("changed afterwards")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    again = read_study(moved / "study.yaml")
    assert [step.id for step in expand(again)] == [step.id for step in expand(study)]
    module = again.tasks[0].module
    assert module is not None
    assert Path(module.path).is_relative_to(moved / "metrics")
    assert dataclasses.replace(module, path="") == dataclasses.replace(
        study.tasks[0].module, path=""
    )
    assert kept(again, RunFolder(moved)) == again, "a run of the folder's own study file"


def test_a_module_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    metric = {"module": "f1", "trust_remote_code": True, "result": "f1"}
    before = task_of(tmp_path, **metric)
    assert before.module is not None
    assert (before.module.path, before.metric) == ("", "module:f1.f1")
    space = cache / "spaces--evaluate-metric--f1"
    (space / "refs").mkdir(parents=True)
    (space / "refs" / "main").write_text(COMMIT)
    write_f1(space / "snapshots" / COMMIT / "f1.py")
    study = read_study(write(tmp_path, **metric))
    assert study.tasks[0].identity != before.identity
    inside = kept(study, RunFolder(tmp_path / "run")).tasks[0].module
    assert inside is not None
    assert (inside.hub, inside.trust_remote_code) == (None, False)
    again = read_study(tmp_path / "run" / "study.yaml")
    assert again.tasks[0].identity == study.tasks[0].identity, "by content, wherever it lies"
    assert again.tasks[0].metric == "module:f1.f1"
    with pytest.raises(InputError, match=r"tasks\[0\].metric.module: f1: no such file; the Hub's"):
        task_of(tmp_path, module="f1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def _compute(self): ...", "no class with a method _compute"),
        ("class A:\n  def _compute(self)\n", "no valid Python in line 2"),
        ("\0", "no valid Python"),
    ],
)
def test_scripts_that_are_refused_unrun(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(InputError, match=rf"study.yaml: tasks\[0\].metric.module: .*a.py: {words}"):
        task_of(tmp_path, module="a.py")
