"""What a finished attempt leaves: the first result stays, a late worker takes nothing away."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from test_steps import STUDY

from bigtickets.files import write_json
from bigtickets.running.commands import sweep
from bigtickets.running.context import Context, commit
from bigtickets.running.signals import Stop
from bigtickets.running.steps.results import link_events
from bigtickets.study.claims import Claim, Claims
from bigtickets.study.folder import RunFolder
from bigtickets.study.state import read_state, write_run
from bigtickets.study.steps import Step, expand
from bigtickets.training.ranks import Ranks


def worker(root: Path, owner: str) -> Context:
    folder = RunFolder(root)
    steps = {step.id: step for step in expand(STUDY)}
    ranks = Ranks(0, 1, torch.device("cpu"))
    return Context(folder, STUDY, steps, ranks, Claims(folder.claims, owner), Stop())


def dense(context: Context) -> Step:
    return next(s for s in context.steps.values() if s.kind == "dense" and s.step == "trial")


def attempt(context: Context, claim: Claim, text: str) -> Path:
    path = context.folder.attempt(claim.step_id, claim.attempt)
    path.mkdir(parents=True)
    (path / "record.json").write_text(json.dumps(text))
    return path


def test_a_fenced_worker_discards_its_own_attempt_and_nothing_else(tmp_path: Path) -> None:
    late, current = worker(tmp_path, "late"), worker(tmp_path, "current")
    step = dense(late)
    old = late.claims.take(step.id)
    assert old is not None
    # Its process seems dead to the other, as on a node that was cut off.
    write_json(late.folder.claims / f"{step.id}.1", asdict(replace(old, started=1.0)))
    new = current.claims.take(step.id)
    assert new is not None
    assert new.attempt == 2
    theirs = attempt(current, new, "current")
    ours = attempt(late, old, "late")
    final = late.folder.trial(step.id)
    assert not commit(late, old, ours, final)
    assert not ours.exists()
    assert theirs.exists()
    assert not final.exists()
    assert current.claims.holds(new)
    assert commit(current, new, theirs, final)
    assert json.loads((final / "record.json").read_text()) == "current"


def test_the_first_result_stays(tmp_path: Path) -> None:
    context = worker(tmp_path, "a")
    step = dense(context)
    claim = context.claims.take(step.id)
    assert claim is not None
    final = context.folder.trial(step.id)
    final.mkdir(parents=True)
    (final / "record.json").write_text('"first"')
    second = attempt(context, claim, "second")
    assert not commit(context, claim, second, final)
    assert json.loads((final / "record.json").read_text()) == "first"
    assert not second.exists()


def test_what_a_kill_after_the_commit_leaves_is_swept_for_finished_steps_only(
    tmp_path: Path,
) -> None:
    context = worker(tmp_path, "a")
    write_run(STUDY, context.folder)
    done, unfinished = list(context.steps.values())[1:3]
    for step in (done, unfinished):
        claim = context.claims.take(step.id)
        assert claim is not None
        (attempt(context, claim, "x") / "checkpoints").mkdir()
    checkpoints = context.folder.trial(done.id) / "checkpoints"
    checkpoints.mkdir(parents=True)
    (context.folder.trial(done.id) / "record.json").write_text("{}")
    sweep(context.folder, read_state(context.folder))
    assert not checkpoints.exists()
    assert not context.folder.work(done.id).exists()
    assert context.folder.attempt(unfinished.id, 1).exists()
    assert [p.name for p in context.folder.claims.iterdir()] == [f"{unfinished.id}.1"]


def test_a_link_of_an_earlier_recipe_is_replaced(tmp_path: Path) -> None:
    context = worker(tmp_path, "a")
    step = dense(context)
    for version in (replace(step, id="0" * 16), step):
        context.folder.trial(version.id).mkdir(parents=True)
        link_events(context, version)
    link = context.folder.tb / step.label
    assert link.resolve() == context.folder.trial(step.id).resolve()
    assert [p.name for p in link.parent.iterdir()] == [link.name]
