"""A cluster file: what is asked of SLURM. Refuses, by name, every key and value it cannot mean.

Nothing in it reaches a shell: values become arguments and environment. The one exception is
`setup`, lines of shell by purpose; they are written to a file that the job sources.
"""

import dataclasses
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bigtickets.errors import InputError
from bigtickets.study.parsing import fill, known_keys, load_yaml, shown


@dataclass(frozen=True)
class Cluster:
    """One cluster, or one way of using it."""

    time: str = ""
    """Time limit of a job, in quotes: "4:00:00" or "2-00:00:00". Required."""
    partition: str | None = None
    """Partition of the jobs that train, or several: a,b."""
    light_partition: str | None = None
    """Partition of the two jobs that need no GPU (prefetch and finish); else `partition`."""
    account: str | None = None
    """Account to be charged."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have: "a100&nvlink"."""
    reservation: str | None = None
    """Reservation to run in."""
    exclude: str | None = None
    """Nodes never to be used: node3,node[7-9]. Nodes on which a trial met trouble are added."""
    gpus_per_node: int = 0
    """GPUs of a node; 0: trials run on CPUs."""
    gres: str | None = None
    """For clusters that want --gres: gpu, or gpu:h100. Else --gpus-per-node is used."""
    gpu_memory_gb: float | None = None
    """Memory of one GPU, for choosing how many a trial needs."""
    processes_per_node: int | None = None
    """Processes that one node takes; `gpus_per_node` if not given, or 1 without GPUs."""
    cpus: int = 4
    """CPUs per process (per GPU)."""
    memory_gb: float | None = None
    """Main memory per process (per GPU) in GiB; the cluster's default if not given."""
    whole_nodes: bool = False
    """Take whole nodes, and run as many trials side by side on each as fit."""
    concurrency: int = 16
    """Jobs of one array that run at the same time."""
    max_submitted: int | None = None
    """Most jobs in the queue at once, where SLURM does not tell; array elements count singly."""
    save_seconds: int = 120
    """A job stops that long before its time limit, to write checkpoints."""
    requeues: int = 100
    """Times that a job queues itself again when its time is up."""
    prefetch: Literal["login", "job"] = "login"
    """Where data is tokenised: by `submit` itself, or by a job. Models are always fetched first."""
    setup: tuple[str, ...] = ()
    """Lines of shell before anything else: modules, conda, variables."""
    container: tuple[str, ...] = ()
    """Words put before the Python command: [apptainer, exec, --nv, image.sif]."""
    python: str | None = None
    """Python to run, an absolute path; the one that submits if not given."""
    scratch: str | None = None
    """Node-local folder for compilers' caches: a path, or a variable that jobs have: $TMPDIR."""
    mail_user: str | None = None
    """Who gets a mail when the study ends."""
    mail_type: str = "END,FAIL"
    """When: SLURM's words."""
    extra: tuple[tuple[str, str], ...] = ()
    """More sbatch options, by their long names: {nice: 100, exclusive: true, switches: 1}."""

    @property
    def per_node(self) -> int:
        """Processes that one node takes."""
        return self.processes_per_node or max(1, self.gpus_per_node)

    @property
    def seconds(self) -> int:
        """The time limit in seconds."""
        return limit_s(self.time) or 0


NAME = r"[\w.@+-]+"
WORDS: dict[str, tuple[str, str]] = {
    "partition": (rf"{NAME}(,{NAME})*", "a partition, or several: a,b"),
    "light_partition": (rf"{NAME}(,{NAME})*", "a partition, or several: a,b"),
    "account": (NAME, "an account's name"),
    "qos": (NAME, "a QOS's name"),
    "constraint": (r"[\w.,&|*()\[\]!:@+-]+", "features like a100&nvlink"),
    "reservation": (rf"{NAME}(,{NAME})*", "a reservation's name"),
    "exclude": (r"[\w.,\[\]-]+", "nodes like node3,node[7-9]"),
    "gres": (r"[a-zA-Z]\w*(:[\w.-]+)?", "a kind like gpu or gpu:h100, without a number"),
    "mail_user": (r"[\w.+%-]+(@[\w.-]+)?", "a mail address"),
    "mail_type": (r"[A-Z_0-9]+(,[A-Z_0-9]+)*", "SLURM's words like END,FAIL"),
    "scratch": (r"/[^\n\r\0]*|\$[A-Za-z_]\w*", "an absolute path, or a variable like $TMPDIR"),
}
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "gpus_per_node": (lambda v: v >= 0, "0 or more"),
    "gpu_memory_gb": (lambda v: v > 0, "more than 0"),
    "processes_per_node": (lambda v: v >= 1, "1 or more"),
    "cpus": (lambda v: v >= 1, "1 or more"),
    "memory_gb": (lambda v: v > 0, "more than 0"),
    "concurrency": (lambda v: v >= 1, "1 or more"),
    "max_submitted": (lambda v: v >= 3, "3 or more"),
    "save_seconds": (lambda v: v >= 1, "1 or more"),
    "requeues": (lambda v: v >= 0, "0 or more"),
    "python": (lambda v: os.path.isabs(v) and "\n" not in v, "an absolute path"),
}
OWN = frozenset(
    [
        "array",
        "begin",
        "chdir",
        "clusters",
        "comment",
        "cpus-per-task",
        "dependency",
        "error",
        "export",
        "export-file",
        "get-user-env",
        "gpus",
        "gpus-per-node",
        "gres",
        "help",
        "input",
        "job-name",
        "mem",
        "nodes",
        "ntasks",
        "ntasks-per-node",
        "open-mode",
        "output",
        "parsable",
        "quiet",
        "requeue",
        "no-requeue",
        "signal",
        "test-only",
        "time",
        "usage",
        "version",
        "wait",
        "wrap",
    ]
)
"""sbatch options that are ours: others' values would break the chain of jobs."""


def read_cluster(path: Path) -> Cluster:
    """The cluster in a YAML file; every error is an InputError naming file and key."""
    raw = load_yaml(path, "a cluster file", 'time: "4:00:00"')
    try:
        return _cluster(raw)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _cluster(raw: dict[str, Any]) -> Cluster:
    known_keys(raw, [f.name for f in dataclasses.fields(Cluster)], "")
    _check_time(raw.get("time"))
    plain = {key: value for key, value in raw.items() if key != "extra"}
    cluster = fill(Cluster, plain, "")
    cluster = dataclasses.replace(cluster, extra=_extra(raw.get("extra")))
    for key, value in vars(cluster).items():
        _check(key, value)
    if cluster.save_seconds * 2 > cluster.seconds:
        raise InputError(
            f"save_seconds: {cluster.save_seconds} is more than half of the time {cluster.time}"
        )
    if cluster.gres and not cluster.gpus_per_node:
        raise InputError("gpus_per_node: missing; `gres` says what kind, this says how many")
    return cluster


def _check(key: str, value: Any) -> None:
    if value is None:
        return
    pattern, expected = WORDS.get(key, (r"[\s\S]*", ""))
    holds = isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII)
    if key in WORDS and not holds:
        raise InputError(f"{key}: {shown(value)}; expected {expected}")
    rule, expected = RULES.get(key, (lambda v: True, ""))
    if not rule(value):
        raise InputError(f"{key}: {shown(value)}; expected {expected}")
    for i, line in enumerate(value if key in ("setup", "container") else ()):
        if re.search(r"[\n\r\0]", line):
            raise InputError(f"{key}[{i}]: {shown(line)}; one line each")


def _check_time(value: Any) -> None:
    if value is None:
        raise InputError('time: missing; give the time limit of a job, like "4:00:00"')
    # YAML reads 4:00:00 as the number 14400, and 240 could be minutes or seconds.
    if not isinstance(value, str) or not limit_s(value):
        raise InputError(f'time: {shown(value)}; write it in quotes: "4:00:00" or "2-00:00:00"')


def limit_s(text: str) -> int | None:
    """Seconds of `HH:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`; None if it is none of them."""
    match = re.fullmatch(
        r"(?:(\d{1,4})-(\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2}))?|(\d{1,4}):(\d\d):(\d\d))",
        text,
        re.ASCII,
    )
    if not match:
        return None
    days, *rest = (int(group or 0) for group in match.groups())
    hours, minutes, seconds = (a + b for a, b in zip(rest[:3], rest[3:], strict=True))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _extra(value: Any) -> tuple[tuple[str, str], ...]:
    """{option: value} as pairs; true is an option without a value."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise InputError(
            f"extra: expected options and values like {{nice: 100}}, got {shown(value)}"
        )
    return tuple(_option(str(name), item) for name, item in value.items())


def _option(name: str, value: Any) -> tuple[str, str]:
    ours = {f.name.replace("_", "-") for f in dataclasses.fields(Cluster)}
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name, re.ASCII):
        raise InputError(f"extra.{name}: give the long name of an sbatch option, without dashes")
    if name in OWN or name in ours:
        why = "it is a key of its own" if name in ours else "bigtickets sets it itself"
        raise InputError(f"extra.{name}: not here; {why}")
    if value is True:
        return name, ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"extra.{name}: {shown(value)}; give text, a number or true")
    if not str(value) or re.search(r"[\x00-\x1f]", str(value)):
        raise InputError(f"extra.{name}: {shown(value)}; give one line of text")
    return name, str(value)
