"""`submit` killed between any two of its writes neither loses nor doubles a job."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_steps import STUDY

from bigtickets import files
from bigtickets.errors import BigticketsError, InputError
from bigtickets.files import write_json
from bigtickets.running.slurm import commands, journal, submission, work
from bigtickets.running.slurm.cluster import Cluster
from bigtickets.running.slurm.limits import Limits
from bigtickets.running.slurm.queue import QueuedJob
from bigtickets.study.claims import Claims
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import StudySpec
from bigtickets.study.steps import Step, expand

CLUSTER = Cluster(time="4:00:00", gpus_per_node=4)


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Slurm:
    """SLURM as sbatch and squeue show it; killed before or after the n-th sbatch or write."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As new."""
        self.jobs: dict[str, QueuedJob] = {}
        self.calls: list[list[str]] = []
        self.answers: list[tuple[int, str, str]] = []
        self.events, self.killed_at = 0, -1

    def event(self) -> None:
        self.events += 1
        if self.events == self.killed_at:
            raise Killed

    def sbatch(self, argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        self.event()
        if self.answers:
            return self.answers.pop(0)
        self.calls.append(argv)
        number = str(100 + len(self.jobs))
        uid = next(w for w in argv if w.startswith("--comment=")).split(":")[1]
        self.jobs[uid] = QueuedJob(number, number, "PENDING", "None", "", uid)
        self.event()
        return 0, f"{number}\n", ""

    def end(self) -> None:
        self.jobs = {uid: replace(job, state="COMPLETED") for uid, job in self.jobs.items()}

    def stages(self) -> list[str]:
        """Of the jobs that wait or run."""
        live = {uid for uid, job in self.jobs.items() if job.live}
        return sorted(argv[argv.index("--uid") - 2] for argv in self.calls if live & set(argv))


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    made = Slurm()
    replacing = files.replacing

    def write(path: Path, data: bytes) -> None:
        made.event()
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        made.event()

    for module in (files, journal, submission):
        monkeypatch.setattr(module, "write_bytes", write)
    monkeypatch.setattr(submission, "_sbatch", made.sbatch)
    facts = {"models": [], "hours": 0, "speed_from": "", "disk_gb": 0, "warnings": []}
    monkeypatch.setattr(submission, "plan_facts", lambda study, folder: facts)
    return made


def submit(slurm: Slurm, folder: RunFolder, study: StudySpec = STUDY) -> list[journal.Entry]:
    """What the command does between its checks and its last line."""
    found = list(slurm.jobs.values())
    submission.reconcile(folder, found)
    return submission.send(submission.survey(study, CLUSTER, folder, found, Limits()))


ALL = ["finish", "scoring", "trials"]


def test_submitted_twice_is_submitted_once(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert [entry.name for entry in submit(slurm, folder)] == ["scoring-1x", "trials-1x", "finish"]
    assert submit(slurm, folder) == []
    assert slurm.stages() == ALL
    scoring, trials, finish = slurm.calls
    assert "--dependency=afterany:100" in trials
    assert "--dependency=afterany:100:101" in finish
    assert not any("dependency" in word for word in scoring)


def test_killed_anywhere_nothing_is_lost_or_doubled(slurm: Slurm, tmp_path: Path) -> None:
    submit(slurm, RunFolder(tmp_path / "whole"))
    events = slurm.events
    assert events > 20
    for killed_at in range(1, events + 1):
        slurm.reset()
        slurm.killed_at = killed_at
        folder = RunFolder(tmp_path / str(killed_at))
        with pytest.raises(Killed):
            submit(slurm, folder)
        slurm.killed_at = -1
        submit(slurm, folder)
        assert slurm.stages() == ALL, killed_at
        assert submit(slurm, folder) == []
        known = {e.uid for e in journal.read_journal(folder) if e.state == "submitted"}
        assert known == set(slurm.jobs)


def test_killed_twice(slurm: Slurm, tmp_path: Path) -> None:
    submit(slurm, RunFolder(tmp_path / "whole"))
    events = slurm.events
    for first in range(1, events + 1, 3):
        for second in range(1, events + 1, 5):
            slurm.reset()
            folder = RunFolder(tmp_path / f"{first}-{second}")
            for at in (first, second):
                slurm.events, slurm.killed_at = 0, at
                try:
                    submit(slurm, folder)
                except Killed:
                    continue
            slurm.killed_at = -1
            submit(slurm, folder)
            assert slurm.stages() == ALL, (first, second)


def test_a_job_that_squeue_did_not_show_finds_itself_given_up(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    entry = journal.record(folder, journal.Entry("late", 1, "trials", 1, 1, 0, 60))
    submission.reconcile(folder, [])
    found = journal.entry_of(folder, entry.uid)
    assert found is not None
    assert found.state == "given up"


def test_an_extended_study_submits_what_is_new(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    submit(slurm, folder)
    longer = replace(STUDY, seeds=(0, 1, 2))
    sent = submit(slurm, folder, longer)
    # The random tickets of the new seed need a look at the scores, its trials a slot each.
    assert [(entry.name, entry.elements) for entry in sent] == [
        ("scoring-1x", 1),
        ("trials-1x", 4),
        ("finish", 1),
    ]
    assert submit(slurm, folder, longer) == []
    # The last job waits for all that is there.
    assert "--dependency=afterany:100:101:103:104" in slurm.calls[-1]


def test_ended_jobs_with_work_left_are_followed_by_new_ones(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    submit(slurm, folder)
    slurm.end()
    steps = expand(STUDY)
    for step in steps:
        if step.step != "trial" or not step.ticket:
            finish(folder, step)
    assert [entry.name for entry in submit(slurm, folder)] == ["trials-1x", "finish"]
    slurm.end()
    for step in steps:
        finish(folder, step)
    assert submit(slurm, folder) == []


def finish(folder: RunFolder, step: Step) -> None:
    write_json(folder.result(step.step, step.id), {})


def test_failed_steps_and_what_needs_them_are_not_submitted(slurm: Slurm, tmp_path: Path) -> None:
    folder, steps = RunFolder(tmp_path), expand(STUDY)
    scores = next(step for step in steps if step.step == "scores")
    claims = Claims(folder.claims, "me")
    claim = claims.take(scores.id)
    assert claim is not None
    claims.release(claim, "diverged", "no")
    for step in steps:
        if step.step == "data" or (step.step == "trial" and not step.ticket):
            finish(folder, step)
    assert submit(slurm, folder) == []
    claims.reopen(scores.id)
    assert [entry.name for entry in submit(slurm, folder)] == ["scoring-1x", "trials-1x", "finish"]


def test_trouble_of_the_machine_is_tried_elsewhere(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, step = RunFolder(tmp_path), expand(STUDY)[0]
    claims = Claims(folder.claims, "me")
    claim = claims.take(step.id)
    assert claim is not None
    claims.release(replace(claim, host="node2.cluster.example"), "infra", "I/O error")
    monkeypatch.setattr(work, "ask", lambda command: "node1\nnode2\nnode3\n")
    submit(slurm, folder)
    assert all("--exclude=node2" in argv for argv in slurm.calls)
    monkeypatch.setattr(work, "ask", lambda command: "other1\n")
    assert work.troubled_hosts(folder) == ()


def test_a_submit_limit_halves_the_array(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    limit = (1, "", "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job ...")
    study = replace(STUDY, seeds=tuple(range(10)))
    slurm.answers = []
    sent = submit(slurm, folder, study)
    assert sent[1].elements == 16
    other = RunFolder(tmp_path / "other")
    slurm.reset()
    slurm.answers = [(0, "1\n", ""), limit, limit]
    assert [entry.elements for entry in submit(slurm, other, study)] == [1, 4, 1]


def test_a_refusal_is_explained_and_the_rest_goes_on_later(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    submit(slurm, folder)
    slurm.reset()
    folder = RunFolder(tmp_path / "other")
    error = "sbatch: error: Batch job submission failed: Invalid qos specification"
    slurm.answers = [(1, "", error)]
    with pytest.raises(InputError, match=r"scoring-1x: .*Invalid qos.*key `qos`"):
        submit(slurm, folder)
    submit(slurm, folder)
    assert slurm.stages() == ALL


def test_an_unclear_answer_is_looked_up_in_the_queue(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    timed_out = "sbatch: error: Batch job submission failed: Socket timed out on send/recv"
    slurm.answers = [(1, "", timed_out)]
    with pytest.raises(BigticketsError, match="Socket timed out"):
        submit(slurm, folder)
    (entry,) = journal.read_journal(folder)
    assert entry.state == "intended"
    # It had been taken: the next look finds it, and only the others are submitted.
    slurm.jobs[entry.uid] = QueuedJob("7", "7_[0]", "PENDING", "", "", entry.uid)
    assert [e.name for e in submit(slurm, folder)] == ["trials-1x", "finish"]
    assert "--dependency=afterany:7" in slurm.calls[0]


def test_a_job_that_was_given_up_covers_nothing(slurm: Slurm, tmp_path: Path) -> None:
    """SLURM shows it late: it will find itself given up, so others must do its work."""
    folder = RunFolder(tmp_path)
    timed_out = (1, "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv")
    slurm.answers = [(0, "7\n", ""), timed_out]
    with pytest.raises(BigticketsError):
        submit(slurm, folder)
    _, late = journal.read_journal(folder)
    submission.reconcile(folder, [])
    slurm.jobs[late.uid] = QueuedJob("8", "8_[0]", "PENDING", "", "", late.uid)
    assert [entry.name for entry in submit(slurm, folder)] == ["scoring-1x", "trials-1x", "finish"]
    assert not any("afterany:8" in word or ":8:" in word for word in slurm.calls[-1])


def test_a_number_that_slurm_gave_to_somebody_else_is_not_cancelled(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    entry = journal.Entry("mine", 1, "trials", 1, 1, 0, 60)
    journal.change(folder, entry, "submitted", "44")
    others = [QueuedJob("44", "44", "RUNNING", "", "", "other")]
    assert commands.ours(folder, others) == {}
    both = [*others, QueuedJob("45", "45_1", "RUNNING", "", "", "mine")]
    assert commands.ours(folder, both) == {"45": "mine"}


def test_rounds_that_got_nowhere_are_counted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for done in (0, 4, 4, 4):
        journal.new_round(folder, ["a"], done)
    assert journal.rounds_without_progress(folder, 4) == 3
    assert journal.rounds_without_progress(folder, 5) == 0
    assert journal.round_ids(folder, 4) == {"a"}


def test_one_submission_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with submission.alone(folder) as first:
        assert first
        with submission.alone(folder) as second:
            assert not second
    with submission.alone(folder) as third:
        assert third
