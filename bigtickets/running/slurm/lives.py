"""How long jobs have held their GPUs: SLURM forgets, so each life of a job leaves a small file.

Its content says when it began and what it held, its time of change when it was last seen.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass

from bigtickets.errors import BigticketsError
from bigtickets.files import read_json, write_json
from bigtickets.study.folder import RunFolder


@dataclass(frozen=True)
class Allocation:
    """What all jobs of a run have held up to now."""

    lives: int
    job_hours: float
    gpu_hours: float


class Life:
    """One life of one job: from its start until it is seen no more."""

    def __init__(self, folder: RunFolder, job: str, attempt: str, gpus: int) -> None:
        self.path = folder.slurm / "lives" / f"{job}.{attempt}.json"
        write_json(self.path, {"job": job, "gpus": gpus, "started": time.time()})

    def beat(self) -> None:
        """Say that it goes on."""
        with suppress(OSError):
            now = time.time()
            os.utime(self.path, (now, now))


def allocation(folder: RunFolder) -> Allocation:
    """Hours of jobs and of GPUs that this run was given."""
    lives, hours, gpu_hours = 0, 0.0, 0.0
    for path in (folder.slurm / "lives").glob("*.json"):
        with suppress(OSError, BigticketsError):
            facts = read_json(path)
            held = max(0.0, path.stat().st_mtime - facts["started"]) / 3600
            lives, hours, gpu_hours = lives + 1, hours + held, gpu_hours + held * facts["gpus"]
    return Allocation(lives, hours, gpu_hours)
