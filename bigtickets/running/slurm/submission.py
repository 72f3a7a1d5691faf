"""`submit`: from a study and a cluster file to a chain of jobs, each exactly once."""

import contextlib
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bigtickets.errors import BigticketsError, InputError
from bigtickets.files import write_bytes
from bigtickets.running.sizes.planning import plan_facts
from bigtickets.running.slurm import journal
from bigtickets.running.slurm.argv import Call, environment, sbatch_argv
from bigtickets.running.slurm.chain import SLOTS, Job, chain
from bigtickets.running.slurm.cluster import Cluster, read_cluster
from bigtickets.running.slurm.journal import Entry
from bigtickets.running.slurm.limits import Limits, one_line, read_limits
from bigtickets.running.slurm.queue import QueuedJob, live_uids, query
from bigtickets.running.slurm.refusals import explain, is_limit, is_unclear
from bigtickets.running.slurm.work import Left, hours_left, steps_left, troubled_hosts
from bigtickets.study.claims import HEARTBEAT_S, Claims, new_owner
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import StudySpec
from bigtickets.study.state import done_ids

SBATCH_S = 300
CLAIM = "submit"
HELD = "another submission of this run is at work (or was killed less than a minute ago, elsewhere)"


@dataclass(frozen=True)
class Submission:
    """What a submission is about to do."""

    study: StudySpec
    cluster: Cluster
    folder: RunFolder
    live: list[Entry]
    """Submitted jobs that wait or run."""
    left: Left
    """Steps that no live job covers."""
    jobs: list[Job]
    exclude: tuple[str, ...]
    """Nodes on which a trial met trouble."""
    facts: dict[str, Any]
    """Those of `plan`."""
    hours: dict[int, float]
    """Left to train, of one group, by its number of processes."""


def survey(
    study: StudySpec, cluster: Cluster, folder: RunFolder, found: list[QueuedJob], limits: Limits
) -> Submission:
    """What is to be submitted; reads files only."""
    uids = live_uids(found)
    entries = journal.read_journal(folder)
    # A job that was given up or cancelled does nothing, should it still start.
    live = [e for e in entries if e.uid in uids and e.state in journal.COUNTED]
    left = steps_left(study, folder)
    covered = journal.covered(folder, live, left)
    new = [item for item in left if item[0].id not in covered]
    queued = sum(entry.elements for entry in live)
    facts = plan_facts(study, folder)
    hours = hours_left(study, facts, cluster)
    jobs = chain(new, hours, cluster, limits, queued)
    if not jobs and live and not any(entry.stage == "finish" for entry in live):
        jobs = [Job("finish")]  # a submission ended between its arrays and this
    exclude = troubled_hosts(folder)
    return Submission(study, cluster, folder, live, new, jobs, exclude, facts, hours)


def reconcile(folder: RunFolder, found: list[QueuedJob]) -> None:
    """Settle the jobs of which it isn't known whether SLURM took them."""
    ids = {job.uid: job.job_id for job in found}
    for entry in journal.read_journal(folder):
        if entry.state != "intended":
            continue
        if entry.uid in ids:
            journal.change(folder, entry, "submitted", ids[entry.uid])
        else:
            journal.change(folder, entry, "given up", why="not in the queue")


def send(plan: Submission) -> list[Entry]:
    """Submit the jobs of a plan, each after those that it follows; returns the journal's entries.

    InputError when SLURM refuses one: those before it stay, and the same command goes on.
    """
    if not plan.jobs:
        return []
    _write_files(plan)
    number = journal.last_round(plan.folder)
    if any(job.stage in SLOTS for job in plan.jobs):
        ids, done = (step.id for step, _, _ in plan.left), len(done_ids(plan.folder))
        number = journal.new_round(plan.folder, ids, done)
    sent: list[Entry] = []
    for job in plan.jobs:
        sent.append(_send_one(plan, job, number, _before(job, [*plan.live, *sent])))
    return sent


def shown_commands(plan: Submission) -> list[str]:
    """The sbatch calls as one could type them, names standing for numbers."""
    lines: list[str] = []
    sent: list[Entry] = []
    for job in plan.jobs:
        before = _before(job, [*plan.live, *sent])
        call = Call(job, "ID", plan.study.study, before, plan.exclude)
        lines.append(shlex.join(sbatch_argv(call, plan.cluster, plan.folder)))
        sent.append(replace(_entry(plan, job, 0), job_id=job.name.upper()))
    return lines


def _before(job: Job, entries: list[Entry]) -> tuple[str, ...]:
    """Numbers of the jobs that must have ended before this one starts."""
    return tuple(entry.job_id for entry in entries if entry.job_id and _follows(job, entry))


def _follows(job: Job, entry: Entry) -> bool:
    """Whether `job` waits for that one: for the stage before it, the last for all."""
    if job.stage == "finish":
        return entry.stage != "finish"
    if entry.stage == "prefetch":
        return True
    early = (entry.stage, job.stage) == ("scoring", "trials")
    return early and entry.processes == job.processes


def _send_one(plan: Submission, job: Job, number: int, before: tuple[str, ...]) -> Entry:
    """One sbatch, journalled; with fewer elements if SLURM takes no more."""
    while True:
        entry = journal.record(plan.folder, _entry(plan, job, number))
        call = Call(job, entry.uid, plan.study.study, before, plan.exclude)
        argv = sbatch_argv(call, plan.cluster, plan.folder)
        code, output, errors = _sbatch(argv, environment(job, plan.cluster, plan.folder))
        job_id = output.strip().split(";")[0]
        if code == 0 and job_id.isdecimal():
            return journal.change(plan.folder, entry, "submitted", job_id)
        if is_unclear(errors) or code == 0:
            raise BigticketsError(f"{job.name}: sbatch: {one_line(errors or output)}")
        journal.change(plan.folder, entry, "refused", why=one_line(errors))
        if not is_limit(errors) or job.elements == 1:
            raise InputError(f"{job.name}: {explain(errors)}")
        job = replace(job, elements=job.elements // 2)


def _entry(plan: Submission, job: Job, number: int) -> Entry:
    return Entry(
        uid=journal.new_uid(),
        round=number,
        stage=job.stage,
        processes=job.processes,
        elements=job.elements,
        gpus=job.gpus(plan.cluster),
        seconds=plan.cluster.seconds,
    )


def _sbatch(argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
    try:
        result = subprocess.run(
            argv, env=env, capture_output=True, text=True, errors="replace", timeout=SBATCH_S
        )
    except FileNotFoundError:
        raise BigticketsError("sbatch: no such command; is this a SLURM login node?") from None
    except subprocess.TimeoutExpired:
        return 1, "", "timed out"
    return result.returncode, result.stdout, result.stderr


def _write_files(plan: Submission) -> None:
    """What the jobs read: setup lines for the shell, words of the container, one per line."""
    for name, lines in (("setup.sh", plan.cluster.setup), ("container", plan.cluster.container)):
        write_bytes(plan.folder.slurm / name, "".join(f"{line}\n" for line in lines).encode())
    plan.folder.logs.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def alone(folder: RunFolder) -> Iterator[bool]:
    """Whether this process is the only one that submits jobs of this run."""
    claims = Claims(folder.slurm / "claims", new_owner())
    claim = claims.take(CLAIM)
    if claim is None:
        yield False
        return
    over = threading.Event()

    def beat() -> None:  # sbatch may hang for longer than a silent owner counts as alive
        while not over.wait(HEARTBEAT_S):
            claims.beat(claim)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield True
    finally:
        over.set()
        thread.join()
        claims.forget(CLAIM)


def keep_cluster(folder: RunFolder, path: Path) -> None:
    """The cluster file, as it was at the last submission, for the job that goes on with it."""
    write_bytes(folder.slurm / "cluster.yaml", path.read_bytes())


def check_place(folder: RunFolder, cluster: Cluster) -> None:
    """Refuse what cannot work from another node."""
    for command in ("sbatch", "squeue", "scontrol"):
        if shutil.which(command) is None:
            raise InputError(f"{command}: no such command; is this a SLURM login node?")
    if any(character in str(folder.root) for character in "\n\r\0\\"):
        raise InputError(f"{str(folder.root)!r}: SLURM cannot work with this name; choose --out")
    if cluster.python and not cluster.container and not os.access(cluster.python, os.X_OK):
        raise InputError(f"python: {cluster.python} cannot be run here")


def look(
    folder: RunFolder, cluster_path: Path, study: StudySpec, without: str | None = None
) -> Submission:
    """One query to SLURM, the journal settled by it, and what is to be submitted.

    `without`: our id of a job that ends now and is not to be counted on.
    """
    cluster = read_cluster(cluster_path)
    found = [job for job in query() if job.uid != without]
    reconcile(folder, found)
    return survey(study, cluster, folder, found, read_limits(cluster))
