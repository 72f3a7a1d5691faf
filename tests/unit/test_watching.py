"""`status`, `logs` and `retry` on a run folder made by hand."""

import json
import threading
import time
from pathlib import Path

import pytest
from test_steps import STUDY

from bigtickets.cli import main
from bigtickets.files import write_json
from bigtickets.running.watching import logs as module
from bigtickets.study.claims import RETRIED, Claims
from bigtickets.study.folder import RunFolder
from bigtickets.study.lives import Diary, Life, read_lives
from bigtickets.study.state import write_run
from bigtickets.study.steps import Step

LOG = "=== {0} dense attempt 1\nstarts\nTraceback\nOSError: disk full\n=== {1} other attempt 1\nx\n"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    write_run(STUDY, folder)
    folder.logs.mkdir()
    return folder


def trials(folder: RunFolder) -> list[Step]:
    steps = [Step(**json.loads(line)) for line in folder.manifest.read_text().splitlines()]
    return [step for step in steps if step.step == "trial"]


def finish(folder: RunFolder, step: Step) -> None:
    write_json(folder.result(step.step, step.id), {})


def fail(folder: RunFolder, step: Step, failure: str, log: str = "") -> None:
    claims = Claims(folder.claims, "somebody", log)
    claim = claims.take(step.id)
    assert claim is not None
    claims.release(claim, failure, f"{failure} happened")  # type: ignore[arg-type]


def facts(folder: RunFolder, capsys: pytest.CaptureFixture) -> dict:
    assert main(["status", str(folder.root), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_trials_by_state_and_failures_by_class_with_the_end_of_a_log(
    folder: RunFolder, capsys: pytest.CaptureFixture
) -> None:
    first, second, third, *_ = trials(folder)
    finish(folder, second)
    (folder.logs / "w.log").write_text(LOG.format(first.id, second.id))
    fail(folder, first, "defect", "w.log")
    assert Claims(folder.claims, "other", "w2.log").take(third.id) is not None
    found = facts(folder, capsys)
    dense = next(cell for cell in found["trials"] if cell["kind"] == "dense")
    assert (dense["done"], dense["failed"]) == (1, 1)
    (failure,) = found["failures"]
    assert (failure["class"], failure["steps"], failure["message"]) == (
        "defect",
        1,
        "defect happened",
    )
    assert failure["lines"][-2:] == ["Traceback", "OSError: disk full"]
    assert [step["id"] for step in found["running"]] == [third.id]
    assert main(["status", str(folder.root)]) == 0
    shown = capsys.readouterr().out
    assert "| OSError: disk full" in shown
    assert any(line.split()[:3] == ["m/t", "0", "1/2"] for line in shown.splitlines())


def test_what_is_tried_again_by_itself_has_not_failed(
    folder: RunFolder, capsys: pytest.CaptureFixture
) -> None:
    step = trials(folder)[0]
    for _ in range(RETRIED["infra"]):
        assert facts(folder, capsys)["steps"]["failed"] == 0
        fail(folder, step, "infra")
    assert facts(folder, capsys)["steps"]["failed"] == 1


def test_efficiency_and_time_left_come_from_what_workers_noted(
    folder: RunFolder, capsys: pytest.CaptureFixture
) -> None:
    assert facts(folder, capsys)["efficiency"] is None
    for name, device_hours in (("a", 1.0), ("b", 3.0)):
        life = Life(name, "h", "l", "cuda", 2, time.time() - device_hours / 2 * 3600)
        with Diary(folder, life) as diary:
            diary.finished("trial m", 900.0, trained_s=1800.0 if name == "b" else 0.0)
    assert len(read_lives(folder)) == 2
    found = facts(folder, capsys)["efficiency"]
    assert found["hours_allocated"] == pytest.approx(4.0, abs=0.01)
    assert found["hours_trained"] == pytest.approx(1.0)
    assert (found["device"], found["share"]) == ("GPU", pytest.approx(0.25, abs=0.01))
    assert facts(folder, capsys)["hours_left"] is None, "nothing runs, and data is not known"
    for stage in ("data", "scores", "ticket"):
        with Diary(folder, Life(stage, "h", "l", "cuda", 1, time.time())) as diary:
            diary.finished(f"{stage} m", 0.0)
    running, *others = trials(folder)
    assert Claims(folder.claims, "other").take(running.id) is not None
    left = facts(folder, capsys)["hours_left"]
    steps = len(folder.manifest.read_text().splitlines())
    assert left == pytest.approx((len(others) + 1) * 0.25 * (1 - 1 / steps / 2))


def test_watching_ends_when_nothing_is_left(
    folder: RunFolder, capsys: pytest.CaptureFixture
) -> None:
    steps = [Step(**json.loads(line)) for line in folder.manifest.read_text().splitlines()]
    threading.Timer(0.3, lambda: [finish(folder, step) for step in steps]).start()
    assert main(["status", str(folder.root), "--watch", "0.1", "--json"]) == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(looks) > 1
    assert looks[0]["steps"]["done"] == 0
    assert looks[-1]["steps"]["done"] == len(steps)


def test_ctrl_c_ends_watching_without_an_error(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bigtickets.running.watching.status.time.sleep", interrupt)
    assert main(["status", str(folder.root), "--watch"]) == 0


def test_following_a_log_ends_with_the_step(
    folder: RunFolder, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the logs of two workers, the second of which fails."""
    monkeypatch.setattr(module, "POLL_S", 0.05)
    step, other, *_ = trials(folder)
    path = folder.logs / "one.log"
    path.write_text(f"=== {other.id} o attempt 1\nnot ours\n=== {step.id} s attempt 1\nfirst\nha")
    claims = Claims(folder.claims, "one", "one.log")
    claim = claims.take(step.id)
    assert claim is not None

    def go_on() -> None:
        with path.open("a") as file:
            file.write(f"lf\n=== {other.id} o attempt 1\nnot ours\n")
        time.sleep(0.3)
        claims.release(claim)
        (folder.logs / "two.log").write_text(f"=== {step.id} s attempt 2\nsecond\n")
        fail(folder, step, "input", "two.log")

    threading.Timer(0.3, go_on).start()
    assert main(["logs", str(folder.root), step.id, "-f"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "===" not in line] == ["first", "half", "second"]


def test_retry_by_name_and_of_all(folder: RunFolder, capsys: pytest.CaptureFixture) -> None:
    first, second, third, *_ = trials(folder)
    for step in (first, second):
        fail(folder, step, "oom")
    assert main(["retry", str(folder.root), third.id]) == 2
    assert "is blocked; only failed steps" in capsys.readouterr().err
    assert main(["retry", str(folder.root), first.label]) == 0
    capsys.readouterr()
    assert facts(folder, capsys)["steps"]["failed"] == 1
    assert main(["retry", str(folder.root), "--failed"]) == 0
    assert "1 failed steps may be tried again" in capsys.readouterr().out
    assert facts(folder, capsys)["steps"]["failed"] == 0
    assert main(["retry", str(folder.root), first.id, "--failed"]) == 2
