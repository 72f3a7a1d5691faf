"""What a worker takes next: everything once, what others need first, nothing left behind."""

import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from test_steps import STUDY

from bigtickets.files import write_json
from bigtickets.running import queue as module
from bigtickets.running.context import Context
from bigtickets.running.queue import Queue
from bigtickets.running.signals import Stop
from bigtickets.study.claims import Claim, Claims
from bigtickets.study.folder import RunFolder
from bigtickets.study.steps import Step, expand
from bigtickets.training.ranks import Ranks

STEPS = {step.id: step for step in expand(STUDY)}


def worker(root: Path, owner: str = "me") -> Context:
    folder = RunFolder(root)
    ranks = Ranks(0, 1, torch.device("cpu"))
    return Context(folder, STUDY, STEPS, ranks, Claims(folder.claims, owner), Stop())


def finish(context: Context, step: Step) -> None:
    """As workers do it: a folder appears with its record in it."""
    result = context.folder.result(step.step, step.id)
    if step.step in ("trial", "scores"):
        attempt = context.folder.attempt(step.id, 1)
        write_json(attempt / result.name, {})
        result.parent.parent.mkdir(exist_ok=True)
        attempt.rename(result.parent)
    else:
        write_json(result, {})
    context.claims.forget(step.id)


def anything(_: Step) -> bool:
    return True


@pytest.mark.parametrize(("few", "many"), [(200, 50), (0, 1)])
def test_four_workers_take_every_step_once_and_after_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int, many: int
) -> None:
    monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(module, "MANY", many)
    taken: list[str] = []
    ready: list[bool] = []

    def work(name: str) -> None:
        context = worker(tmp_path, name)
        queue = Queue(context, STEPS)
        while (found := queue.next(anything)) != "none":
            if not isinstance(found, Claim):
                time.sleep(0.05)
                continue
            step = STEPS[found.step_id]
            ready.append(all(context.done(need) for need in step.needs))
            taken.append(step.id)
            finish(context, step)

    threads = [threading.Thread(target=work, args=(f"worker{i}",)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(taken) == sorted(STEPS)
    assert all(ready)


def test_waits_for_the_living_and_takes_over_from_the_dead(tmp_path: Path) -> None:
    mine, other = worker(tmp_path), worker(tmp_path, "other")
    data = [s for s in STEPS.values() if s.step == "data"]
    theirs = [claim for s in data if (claim := other.claims.take(s.id))]
    queue = Queue(mine, STEPS)
    assert queue.next(anything) == "wait"
    # As if its process had died.
    write_json(other.folder.claims / f"{data[0].id}.1", asdict(replace(theirs[0], started=1.0)))
    found = queue.next(anything)
    assert isinstance(found, Claim)
    assert (found.step_id, found.attempt) == (data[0].id, 2)


def test_what_failed_for_good_is_left_until_it_is_reopened(tmp_path: Path) -> None:
    context = worker(tmp_path)
    queue = Queue(context, [s.id for s in STEPS.values() if s.step == "data"])
    while isinstance(found := queue.next(anything), Claim):
        context.claims.release(found, "input", "no such column")
        failed = found.step_id
    assert found == "none"
    context.claims.reopen(failed)
    found = queue.next(anything)
    assert isinstance(found, Claim)
    assert found.step_id == failed


def test_nothing_is_overlooked_among_many_claimed_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only some of the claimed ones are tried at a look; the free one is found all the same."""
    monkeypatch.setattr(module, "AGAIN", 1)
    context = worker(tmp_path)
    for step in STEPS.values():
        if step.step == "data":
            finish(context, step)
    free, *others = [s.id for s in STEPS.values() if s.step == "trial"]
    monkeypatch.setattr(Queue, "_newly_done", lambda queue: set())
    for step_id in others[:-1]:
        claim = context.claims.take(step_id)
        assert claim is not None
        context.claims.release(claim, *(() if step_id == others[1] else ("input", "bad")))
    queue = Queue(context, [free, *others[:-1]])
    queue._ready.update({i: STEPS[i] for i in (free, *others[:-1])})
    found = {claim.step_id for _ in range(2) if isinstance(claim := queue.next(anything), Claim)}
    assert found == {free, others[1]}
    assert queue.next(anything) == "wait"


def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts looks; fails where there is no end to them."""
    made: list[int] = []
    look = Queue._look

    def counted(queue: Queue, all_claimed: bool) -> None:
        made.append(1)
        assert len(made) < 50
        look(queue, all_claimed)

    monkeypatch.setattr(Queue, "_look", counted)
    return made


def test_late_among_many_claimed_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others work on more steps than are tried at a look, and what is free does not fit."""
    monkeypatch.setattr(module, "AGAIN", 0)
    context, other = worker(tmp_path), worker(tmp_path, "other")
    for step in STEPS.values():
        if step.step == "data":
            finish(context, step)
    free, taken = [s.id for s in STEPS.values() if s.step == "trial" and not s.ticket]
    assert other.claims.take(taken)
    looks(monkeypatch)
    assert Queue(context, [free, taken]).next(lambda step: False) == "late"


def test_a_listing_older_than_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As network file systems have it for a minute."""
    context = worker(tmp_path)
    for step in STEPS.values():
        finish(context, step)
    monkeypatch.setattr(Queue, "_newly_done", lambda queue: set())
    looks(monkeypatch)
    assert Queue(context, STEPS).next(anything) == "none"


def test_late_if_nothing_fits_the_time_that_is_left(tmp_path: Path) -> None:
    assert Queue(worker(tmp_path), STEPS).next(lambda step: False) == "late"
    assert not list((tmp_path / "claims").iterdir())
