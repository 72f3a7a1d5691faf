"""The sbatch call of a job: arguments and environment, and nothing that a shell reads."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import bigtickets
from bigtickets.running.slurm.chain import LIGHT_SECONDS, SLOTS, Job
from bigtickets.running.slurm.cluster import Cluster
from bigtickets.running.slurm.limits import clean_environment
from bigtickets.study.folder import RunFolder

TAG = "bigtickets:"
"""Begins the comment of each of our jobs; our own id follows."""


@dataclass(frozen=True)
class Call:
    """What one sbatch is about."""

    job: Job
    uid: str
    """Ours, in the job's comment: SLURM gives job ids again after a crash."""
    study: str
    """Its name."""
    after: tuple[str, ...] = ()
    """Ids of the jobs that must have ended."""
    exclude: tuple[str, ...] = ()
    """Nodes on which trials met trouble."""


def sbatch_argv(call: Call, cluster: Cluster, folder: RunFolder) -> list[str]:
    """The whole command line, script and its words included."""
    return [
        "sbatch",
        "--parsable",
        f"--job-name={call.study}-{call.job.name}",
        f"--comment={TAG}{call.uid}",
        f"--chdir={folder.root}",
        *_output(call.job, folder),
        *(["--dependency=afterany:" + ":".join(call.after)] if call.after else []),
        *_place(call, cluster),
        *(_slots(call.job, cluster) if call.job.stage in SLOTS else _light(call.job, cluster)),
        *(f"--{name}={value}" if value else f"--{name}" for name, value in cluster.extra),
        "--requeue",
        "--open-mode=append",
        "--export=ALL",
        str(script()),
        *_words(call, folder),
    ]


def environment(job: Job, cluster: Cluster, folder: RunFolder) -> dict[str, str]:
    """The environment that sbatch hands on to the job."""
    own = {
        "BIGTICKETS_PYTHON": cluster.python or sys.executable,
        "BIGTICKETS_SETUP": str(folder.slurm / "setup.sh") if cluster.setup else "",
        "BIGTICKETS_CONTAINER": str(folder.slurm / "container") if cluster.container else "",
        "BIGTICKETS_SCRATCH": cluster.scratch or "",
        "BIGTICKETS_REQUEUES": str(cluster.requeues),
        # When a slot stops, counted from its start; the others have nothing to save.
        "BIGTICKETS_SECONDS": str(cluster.seconds - cluster.save_seconds)
        if job.stage in SLOTS
        else "",
        "PYTHONPATH": os.pathsep.join(_search_path()),
        # Jobs run in the run folder, whose folders are no packages.
        "PYTHONSAFEPATH": "1",
    }
    return {**clean_environment(), **own}


def script() -> Path:
    """The batch script: inside an installed package, beside it in a checkout."""
    package = Path(bigtickets.__file__).parent
    inside = package / "slurm_scripts"
    return (inside if inside.is_dir() else package.parent / "slurm") / "job.sh"


def _search_path() -> list[str]:
    """Jobs import the package that submits, installed or not."""
    given = os.environ.get("PYTHONPATH", "")
    source = str(Path(bigtickets.__file__).parent.parent)
    return [source, *(path for path in given.split(os.pathsep) if path and path != source)]


def _output(job: Job, folder: RunFolder) -> list[str]:
    """The log file: %A, %a and %j are numbers of the job, %% is a percent sign of the path."""
    number = "%A_%a" if job.stage in SLOTS else "%j"
    logs = str(folder.logs).replace("%", "%%")
    return [f"--output={logs}/{job.name}-{number}.out"]


def _place(call: Call, cluster: Cluster) -> list[str]:
    """Where, and on whose account."""
    light = call.job.stage not in SLOTS
    partition = (cluster.light_partition if light else None) or cluster.partition
    exclude = ",".join(word for word in (cluster.exclude, *call.exclude) if word)
    given = {
        "partition": partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": None if light else cluster.constraint,
        "reservation": cluster.reservation,
        "exclude": exclude,
    }
    return [f"--{name}={value}" for name, value in given.items() if value]


def _slots(job: Job, cluster: Cluster) -> list[str]:
    """An array of slots, each with one task per node that starts the processes itself."""
    throttle = f"%{cluster.concurrency}" if job.elements > cluster.concurrency else ""
    words = [
        f"--array=0-{job.elements - 1}{throttle}",
        f"--time={cluster.time}",
        # To the batch shell only: to all, it would end torchrun.
        f"--signal=B:USR2@{cluster.save_seconds}",
        f"--nodes={job.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={cluster.cpus * job.per_node}",
    ]
    gpus = job.gpus(cluster) // job.nodes
    if gpus:
        words.append(f"--gres={cluster.gres}:{gpus}" if cluster.gres else f"--gpus-per-node={gpus}")
    words += ["--exclusive"] if cluster.whole_nodes else []
    if cluster.memory_gb:
        words.append(f"--mem={round(1024 * cluster.memory_gb * job.per_node)}M")
    return words


def _light(job: Job, cluster: Cluster) -> list[str]:
    """One task without GPUs."""
    seconds = min(LIGHT_SECONDS, cluster.seconds)
    words = [f"--time={seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"]
    words += ["--nodes=1", "--ntasks=1", f"--cpus-per-task={cluster.cpus}"]
    words += [f"--mem={round(1024 * cluster.memory_gb)}M"] if cluster.memory_gb else []
    if cluster.mail_user and job.stage == "finish":
        words += [f"--mail-user={cluster.mail_user}", f"--mail-type={cluster.mail_type}"]
    return words


def _words(call: Call, folder: RunFolder) -> list[str]:
    """The words of `python -m bigtickets.running.slurm.job`."""
    job, words = call.job, [call.job.stage, str(folder.root), "--uid", call.uid]
    if job.stage in SLOTS:
        words += ["--processes", str(job.processes), "--groups", str(job.groups)]
        words += ["--per-node", str(job.per_node)]
    return words
