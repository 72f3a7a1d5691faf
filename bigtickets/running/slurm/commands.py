"""`submit` and `cancel`."""

import math
import sys
from pathlib import Path

from bigtickets.errors import BigticketsError, InputError
from bigtickets.files import write_json
from bigtickets.running.commands import prepare
from bigtickets.running.signals import Stop
from bigtickets.running.sizes.memory_table import MOST_NODES
from bigtickets.running.sizes.sizing import Machine, resolve
from bigtickets.running.slurm import journal
from bigtickets.running.slurm.chain import SLOTS, Job
from bigtickets.running.slurm.cluster import Cluster, read_cluster
from bigtickets.running.slurm.limits import Limits, ask, read_limits
from bigtickets.running.slurm.queue import QueuedJob, query
from bigtickets.running.slurm.submission import (
    HELD,
    Submission,
    alone,
    check_place,
    keep_cluster,
    look,
    send,
    shown_commands,
    survey,
)
from bigtickets.running.slurm.work import GPU_FLOPS, speed_is_assumed
from bigtickets.running.words import command
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.pins import pinned_as_before
from bigtickets.study.reader import read_study


def submit(study_path: Path, cluster_path: Path, out: Path | None, dry_run: bool) -> None:
    """Submit what of a study no job of ours works on; returns at once."""
    cluster = read_cluster(cluster_path)
    again = command(
        "submit", study_path, "--cluster", cluster_path, *(("--out", out) if out else ())
    )
    if dry_run:
        _dry_run(study_path, cluster_path, cluster, out)
        print(f"next: {again}")
        return
    study = read_study(study_path)
    check_place(RunFolder((out or Path("runs") / study.study).resolve()), cluster)
    stop = Stop()
    stop.install()
    study, folder = prepare(
        study_path,
        out,
        stop,
        tokenise=cluster.prefetch == "login",
        machine=lambda: machine_of(cluster, cluster_path),
    )
    stop.raise_if_asked()
    with alone(folder) as mine:
        if not mine:
            raise InputError(f"{folder.root}: {HELD}; type the same command again in a minute")
        keep_cluster(folder, cluster_path)
        _resume(folder)
        try:
            plan = look(folder, cluster_path, study)
            _describe(plan, cluster_path)
            for entry in send(plan):
                print(f"submitted {entry.name} as job {entry.job_id}", flush=True)
        except BigticketsError as error:
            raise type(error)(f"{error}\nnext: {again}   (goes on where it stopped)") from None
    print(
        f"next: {command('status', folder.root)}   then: {command('cancel', folder.root)} to end it"
    )


def machine_of(cluster: Cluster, path: Path) -> Machine:
    """What trials run on there; InputError where the file doesn't say how large a GPU is."""
    if not cluster.gpus_per_node:
        return Machine(cluster.memory_gb or math.inf, 0)
    if cluster.gpu_memory_gb is None:
        raise InputError(
            f"{path}: gpu_memory_gb: missing; the study leaves ZeRO stage or processes to be "
            "chosen, and that takes the GPU's memory"
        )
    return Machine(cluster.gpu_memory_gb, cluster.per_node, MOST_NODES)


def cancel(root: Path, yes: bool) -> None:
    """Cancel the jobs of a run that wait or run, and nobody else's."""
    folder = open_run(root)
    names = {entry.uid: entry.name for entry in journal.read_journal(folder)}
    jobs = ours(folder, query()) if names else {}
    if not jobs:
        print(f"{folder.root}: no job of this run waits or runs")
        return
    for job_id, uid in sorted(jobs.items()):
        print(f"job {job_id}  {names[uid]}")
    if not yes and not _agreed(f"cancel {len(jobs)} jobs?"):
        print("nothing was cancelled")
        return
    # Before: the last job may be about to submit another round.
    write_json(_marker(folder), {"cancelled": True})
    _scancel(folder, jobs)
    for entry in journal.read_journal(folder):
        if entry.uid in jobs.values():
            journal.change(folder, entry, "cancelled")
    print(f"cancelled {len(jobs)} jobs; what is done stays, `submit` goes on with the rest")


def ours(folder: RunFolder, found: list[QueuedJob]) -> dict[str, str]:
    """Job id -> our id of the live jobs of a run: those whose comment is in its journal.

    A job number alone proves nothing: SLURM gives numbers again after a crash.
    """
    known = {entry.uid for entry in journal.read_journal(folder)}
    return {job.job_id: job.uid for job in found if job.live and job.uid in known}


def goes_on(folder: RunFolder) -> bool:
    """Whether the last job may submit what is left: not after `cancel`."""
    return not _marker(folder).exists()


def _marker(folder: RunFolder) -> Path:
    return folder.slurm / "cancelled.json"


def _scancel(folder: RunFolder, jobs: dict[str, str]) -> None:
    """Cancel them all; one that has ended meanwhile is no error."""
    try:
        ask(["scancel", *sorted(jobs)])
    except BigticketsError:
        found = [job for job in query() if job.state != "COMPLETING"]
        if set(ours(folder, found)) & set(jobs):
            raise


def _resume(folder: RunFolder) -> None:
    _marker(folder).unlink(missing_ok=True)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise InputError("cancel asks first; without a terminal give --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _dry_run(study_path: Path, cluster_path: Path, cluster: Cluster, out: Path | None) -> None:
    study = read_study(study_path)
    folder = RunFolder((out or Path("runs") / study.study).resolve())
    study = pinned_as_before(study, folder)
    study = resolve(study, lambda: machine_of(cluster, cluster_path))
    try:
        found, limits = query(), read_limits(cluster)
    except BigticketsError as error:
        print(f"note: {error}: assuming that no job is there, and SLURM's default limits")
        found, limits = [], Limits(submitted=cluster.max_submitted)
    plan = survey(study, cluster, folder, found, limits)
    _describe(plan, None)
    for line in shown_commands(plan):
        print(line)


def _describe(plan: Submission, cluster_path: Path | None) -> None:
    """What is about to happen: jobs, GPU-hours, disk."""
    where = f" with {cluster_path}" if cluster_path else ""
    print(f"study {plan.study.study} in {plan.folder.root}{where}")
    for entry in plan.live:
        print(f"  {entry.name:<12} job {entry.job_id} waits or runs")
    if not plan.jobs:
        print(f"  nothing to submit: {_why_nothing(plan)}")
        return
    for job in plan.jobs:
        print(f"  {job.name:<12} {_size(job, plan.cluster)}")
    print(f"  {_hours(plan)}")
    print(f"  about {plan.facts['disk_gb']:.2f} GiB of disk")
    for node in plan.exclude:
        print(f"  without {node}: a trial met trouble there")
    for warning in plan.facts["warnings"]:
        print(f"  note: {warning}")


def _why_nothing(plan: Submission) -> str:
    if plan.live:
        return "its jobs are at work"
    if all(steps["done"] == steps["total"] for steps in plan.facts["steps"].values()):
        return "nothing is left to do"
    return f"what is left has failed, or waits for it; see {command('status', plan.folder.root)}"


def _size(job: Job, cluster: Cluster) -> str:
    if job.stage not in SLOTS:
        return "1 job"
    gpus, processes = job.gpus(cluster), job.per_node * job.nodes
    each = _count(gpus, "GPU") if gpus else _count(processes, "process", "es")
    nodes = f" on {job.nodes} nodes" if job.nodes > 1 else ""
    side = f", {job.groups} trials side by side" if job.groups > 1 else ""
    at_once = f", {cluster.concurrency} at once" if job.elements > cluster.concurrency else ""
    return f"{_count(job.elements, 'job')} of {each}{nodes}{side}{at_once}, {cluster.time} each"


def _count(number: int, thing: str, plural: str = "s") -> str:
    return f"{number} {thing}{plural if number != 1 else ''}"


def _hours(plan: Submission) -> str:
    """What is left to train, and how that is known."""
    work, source = plan.hours, plan.facts["speed_from"]
    if not plan.cluster.gpus_per_node:
        return f"about {sum(work.values()):.2g} hours of training in all ({source})"
    hours = sum(each * processes for processes, each in work.items())
    if speed_is_assumed(plan.facts):
        source = f"assuming {GPU_FLOPS / 1e12:.0f} TFLOP/s per GPU; known better after a trial"
    return f"about {hours:.2g} GPU-hours of training ({source})"
