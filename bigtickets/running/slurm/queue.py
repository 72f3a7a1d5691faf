"""What SLURM says about our jobs: one squeue per look. It works without accounting (sacct)."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bigtickets.running.slurm.argv import TAG
from bigtickets.running.slurm.journal import Entry, read_journal
from bigtickets.running.slurm.limits import ask
from bigtickets.study.folder import RunFolder

# Text: the JSON forms differ between releases. The comment last: it may hold anything.
FORMAT = "%F|%i|%T|%r|%N|%k"
ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)


@dataclass(frozen=True)
class QueuedJob:
    """One line of squeue: a job, an element, or the elements of an array that still wait."""

    job_id: str
    """The array's, for elements."""
    element: str
    """As squeue names it: 12, 12_3 or 12_[4-9%2]."""
    state: str
    reason: str
    nodes: str
    uid: str
    """Ours, from the comment; empty for jobs that are not ours."""

    @property
    def live(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in ENDED


def query() -> list[QueuedJob]:
    """The user's jobs that are ours, also those that ended a short while ago."""
    command = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}"]
    return parse(ask([*command, f"--format={FORMAT}"]))


def parse(text: str) -> list[QueuedJob]:
    """Lines of squeue in FORMAT; jobs without our comment and broken lines are left out."""
    jobs = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|", 5)]
        if len(parts) == 6 and parts[5].startswith(TAG):
            parts[5] = parts[5].removeprefix(TAG)
            jobs.append(QueuedJob(*parts))
    return jobs


def live_uids(jobs: Iterable[QueuedJob]) -> set[str]:
    """Our ids of the jobs of which an element waits or runs."""
    return {job.uid for job in jobs if job.live}


def elements_waiting(element: str) -> int:
    """How many elements a line stands for: 12_[4-9,12%2] are seven."""
    if "[" not in element:
        return 1
    inside = element[element.index("[") + 1 :].rstrip("]").split("%")[0]
    count = 0
    for part in inside.split(","):
        first, _, last = part.partition("-")
        last, _, step = last.partition(":")
        if not first.isdecimal() or not (last or first).isdecimal():
            return max(count, 1)  # squeue shortens long lists with dots
        count += (int(last or first) - int(first)) // int(step or 1) + 1
    return count


def job_facts(folder: RunFolder, jobs: Iterable[QueuedJob]) -> list[dict[str, Any]]:
    """Each submitted job of a run with the states of its elements, as JSON.

    States of jobs that SLURM has forgotten are empty: they have ended.
    """
    lines: dict[str, list[QueuedJob]] = {}
    for job in jobs:
        lines.setdefault(job.uid, []).append(job)
    return [
        _facts(entry, lines.get(entry.uid, []))
        for entry in read_journal(folder)
        if entry.state in ("intended", "submitted", "cancelled")
    ]


def _facts(entry: Entry, lines: list[QueuedJob]) -> dict[str, Any]:
    states: Counter[str] = Counter()
    for line in lines:
        states[line.state] += elements_waiting(line.element)
    return {
        "job": entry.job_id,
        "name": entry.name,
        "round": entry.round,
        "elements": entry.elements,
        "gpus": entry.elements * entry.gpus,
        "live": any(line.live for line in lines),
        "states": dict(states),
        "reasons": sorted({line.reason for line in lines if line.state == "PENDING"}),
        "nodes": sorted({line.nodes for line in lines if line.state == "RUNNING"}),
    }
