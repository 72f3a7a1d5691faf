"""What has been submitted: one file per job in RUN/slurm/jobs, written before sbatch and after.

A `submit` that is killed anywhere leaves a job "intended". Whether SLURM has it is known by its
comment, which holds our own id: the next `submit` looks, and records the number or gives the id
up. A job that starts under an id given up ends at once, so no work is ever submitted twice.
"""

import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from bigtickets.errors import DamagedError
from bigtickets.files import read_json, write_bytes, write_json
from bigtickets.running.slurm.chain import SLOTS, Job, Stage
from bigtickets.study.folder import RunFolder
from bigtickets.study.steps import Step

State = Literal["intended", "submitted", "refused", "given up", "cancelled"]
COUNTED: tuple[State, ...] = ("intended", "submitted")
"""States of a job that works when it starts."""


@dataclass(frozen=True)
class Entry:
    """One job or array, as the journal says it."""

    uid: str
    round: int
    """Number of the submission that it belongs to; its steps are listed once per round."""
    stage: Stage
    processes: int
    elements: int
    gpus: int
    """Of one element."""
    seconds: int
    """Time limit of one element."""
    state: State = "intended"
    job_id: str = ""
    why: str = ""
    """What SLURM said, if it refused."""

    @property
    def name(self) -> str:
        """For people: `trials-8x`."""
        return Job(self.stage, self.processes).name


def new_uid() -> str:
    """An id that no other job has."""
    return uuid.uuid4().hex[:16]


def read_journal(folder: RunFolder) -> list[Entry]:
    """All jobs ever intended, oldest round first."""
    entries = []
    for path in sorted(_jobs(folder).glob("*.json")):
        try:
            entries.append(Entry(**read_json(path)))
        except TypeError as error:
            raise DamagedError(f"{path}: not a job of ours ({error})") from None
    order: dict[Stage, int] = {"prefetch": 0, "scoring": 1, "trials": 2, "finish": 3}
    return sorted(entries, key=lambda e: (e.round, order[e.stage], e.processes))


def record(folder: RunFolder, entry: Entry) -> Entry:
    """Write one job's state; on the disk when this returns."""
    write_json(_jobs(folder) / f"{entry.uid}.json", asdict(entry))
    return entry


def change(folder: RunFolder, entry: Entry, state: State, job_id: str = "", why: str = "") -> Entry:
    """Record a job's new state."""
    return record(folder, replace(entry, state=state, job_id=job_id or entry.job_id, why=why))


def entry_of(folder: RunFolder, uid: str) -> Entry | None:
    """One job, or None if the journal does not know it."""
    path = _jobs(folder) / f"{uid}.json"
    return Entry(**read_json(path)) if path.is_file() else None


def new_round(folder: RunFolder, ids: Iterable[str], done: int) -> int:
    """Begin a submission for these steps, with so many steps done; its number."""
    number = last_round(folder) + 1
    write_json(_rounds(folder) / f"{number:04d}.json", {"done": done})
    write_bytes(_rounds(folder) / f"{number:04d}.ids", "".join(f"{i}\n" for i in ids).encode())
    return number


def last_round(folder: RunFolder) -> int:
    """Number of the newest submission; 0 before the first."""
    return max((int(path.stem) for path in _rounds(folder).glob("*.json")), default=0)


def rounds_without_progress(folder: RunFolder, done: int) -> int:
    """How many of the last submissions began with as many steps done as there are now."""
    count = 0
    for path in sorted(_rounds(folder).glob("*.json"), reverse=True):
        if read_json(path)["done"] != done:
            break
        count += 1
    return count


def round_ids(folder: RunFolder, number: int) -> set[str]:
    """Ids of the steps of one submission."""
    path = _rounds(folder) / f"{number:04d}.ids"
    return set(path.read_text().split()) if path.is_file() else set()


def covered(
    folder: RunFolder, live: Iterable[Entry], wanted: Iterable[tuple[Step, int, bool]]
) -> set[str]:
    """Ids of the wanted steps that a live array will work on.

    A trials array takes all steps of its shape, a scoring array those that trials wait for.
    """
    found: set[str] = set()
    wanted = list(wanted)
    for entry in live:
        if entry.stage not in SLOTS:
            continue
        ids = round_ids(folder, entry.round)
        found |= {
            step.id
            for step, processes, early in wanted
            if step.id in ids
            and processes == entry.processes
            and (early or entry.stage == "trials")
        }
    return found


def _jobs(folder: RunFolder) -> Path:
    return folder.slurm / "jobs"


def _rounds(folder: RunFolder) -> Path:
    return folder.slurm / "rounds"
