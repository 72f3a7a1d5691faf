"""What every stage works with, and the commit that ends it."""

import errno
import functools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from bigtickets.errors import Interrupted
from bigtickets.files import fsync
from bigtickets.running.signals import Stop
from bigtickets.study.claims import Claim, Claims
from bigtickets.study.folder import RunFolder
from bigtickets.study.lives import Diary
from bigtickets.study.spec import ModelSpec, StudySpec, TaskSpec
from bigtickets.study.steps import Step
from bigtickets.training.ranks import Ranks


@dataclass(frozen=True)
class Context:
    """One worker's view of a run: what is asked, where it goes, who else is there."""

    folder: RunFolder
    study: StudySpec
    steps: dict[str, Step]
    ranks: Ranks
    claims: Claims
    stop: Stop
    diary: Diary | None = None
    """Of the first rank of a worker; single steps keep none."""

    def model(self, step: Step) -> ModelSpec:
        """The model that a step is about."""
        return next(m for m in self.study.models if m.name == step.model)

    def task(self, step: Step) -> TaskSpec:
        """The task that a step is about."""
        return next(t for t in self.study.tasks if t.name == step.task)

    def done(self, step_id: str) -> bool:
        """Whether a step has its result."""
        return self.folder.result(self.steps[step_id].step, step_id).exists()

    def data(self, step: Step) -> Path:
        """The tokenised data that a step reads."""
        return self.folder.data(next(n for n in step.needs if self.steps[n].step == "data"))

    @functools.cached_property
    def scored(self) -> frozenset[str]:
        """Ids of the dense trials whose weights an importance pass reads."""
        return frozenset(s.dense for s in self.steps.values() if s.dense)

    def check_stop(self) -> None:
        """Interrupted on all ranks if any is asked to stop; every rank must call it."""
        if self.ranks.any(self.stop.asked())[0]:
            raise Interrupted("stopped early")


def commit(context: Context, claim: Claim, attempt: Path, final: Path) -> bool:
    """Move a finished attempt's folder to its final place; the first one there stays.

    The attempt holds everything, its record too, so it appears whole or not at all. A worker
    that lost its claim meanwhile (it was cut off, or frozen) finds a fence and discards its work.
    """
    if not context.claims.holds(claim):
        shutil.rmtree(attempt, ignore_errors=True)
        return False
    for path in attempt.iterdir():
        fsync(path)
    fsync(attempt)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(attempt, final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(attempt, ignore_errors=True)
        return False
    fsync(final.parent)
    return True
