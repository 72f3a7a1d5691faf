"""The examples run, with tiny stand-ins for their weights and data."""

from pathlib import Path

import pytest
import yaml
from small_study import write_data, write_model
from test_commands import bigtickets, records

from bigtickets.study.reader import read_study
from bigtickets.study.steps import expand

pytestmark = pytest.mark.study
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_is_loaded_and_planned(path: Path, tmp_path: Path) -> None:
    stand_in(path, tmp_path)
    study = read_study(tmp_path / path.name)
    assert len({step.id for step in expand(study)}) == len(expand(study))
    shown = bigtickets("plan", path.name, cwd=tmp_path)
    assert "next: bigtickets run" in shown


def test_the_demo_runs(tmp_path: Path) -> None:
    demo = next(p for p in EXAMPLES if p.name == "demo.yaml")
    stand_in(demo, tmp_path)
    shown = bigtickets("run", "demo.yaml", "-j", 2, cwd=tmp_path)
    study = read_study(tmp_path / demo.name)
    trials = [step for step in expand(study) if step.step == "trial"]
    assert len(records(tmp_path / "runs" / "demo")) == len(trials)
    assert "report/index.html" in shown


def test_the_published_scores_study_has_the_ladders_dense_models(tmp_path: Path) -> None:
    """Else benchmarks/against_paper.py would compare tickets of different models."""
    ladder, token = (
        next(p for p in EXAMPLES if p.stem == name) for name in ("size_ladder", "paper_protocol")
    )
    stand_in(ladder, tmp_path)
    (tmp_path / token.name).write_text(token.read_text())
    ours, theirs = (expand(read_study(tmp_path / path.name)) for path in (ladder, token))
    scored = {step.dense for step in theirs if step.step == "scores"}
    assert len(scored) == 10
    assert scored <= {step.dense for step in ours}
    assert not {s.id for s in theirs if s.step == "scores"} & {s.id for s in ours}


def stand_in(example: Path, root: Path) -> None:
    """The example, and a small model or data set wherever it names a local one."""
    text = example.read_text()
    (root / example.name).write_text(text)
    spec = yaml.safe_load(text)
    for layers, path in enumerate(dict.fromkeys(model["path"] for model in spec["models"]), 1):
        if path.startswith("assets/"):
            write_model(root / path, layers=layers)
    for place, task in enumerate(spec["tasks"]):
        if isinstance(task, dict):
            write_data((root / task["train"]).parent, rows=96 + 2 * place)
