"""Keeps TensorBoard's view of a study current while trials run, by a process now and then.

Many slots on many nodes watch one run folder. A claim lets one of them at a time write the view,
and a stamp keeps all of them to a pace that grows with what the view costs.
"""

import subprocess
import sys
import time
from pathlib import Path

from bigtickets.errors import BigticketsError, InputError
from bigtickets.files import read_json, write_json
from bigtickets.study.claims import Claims, new_owner
from bigtickets.study.folder import RunFolder, open_run

EVERY_S = 120.0
SHARE = 0.05
"""Most of the time that may go into writing the view."""


class StudyView:
    """Has the view written anew when trials have been finished and it is time."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._process: subprocess.Popen | None = None
        self._seen = -1
        # Not at once: short runs end with a report, which writes the view.
        self._not_before = time.monotonic() + EVERY_S

    def tick(self, done: int) -> None:
        """To be called now and then, with the number of steps that are done."""
        running = self._process is not None and self._process.poll() is None
        if running or done == self._seen or time.monotonic() < self._not_before:
            return
        if not due(self._folder):
            return
        self._seen = done
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bigtickets.running.watching.view", str(self._folder.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        """End the writing, if it goes on: whoever comes next writes the view."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def due(folder: RunFolder) -> bool:
    """Whether the view is old enough, in relation to what it costs, to be written anew."""
    try:
        stamp = read_json(_stamp(folder))
        return time.time() - stamp["at"] > max(EVERY_S, stamp["seconds"] / SHARE)
    except (BigticketsError, OSError):
        return True


def refresh(folder: RunFolder) -> bool:
    """Write the view, if nobody else does; whether it was written."""
    claims = Claims(_stamp(folder).parent, new_owner())
    claim = claims.take("view")
    if claim is None:
        return False
    try:
        if not due(folder):
            return False
        from bigtickets.analysis.tensorboard import write_study_view

        started = time.time()
        write_study_view(folder)
        write_json(_stamp(folder), {"at": time.time(), "seconds": time.time() - started})
        return True
    except InputError:  # no trial has finished yet
        return False
    finally:
        claims.forget("view")


def _stamp(folder: RunFolder) -> Path:
    return folder.tb / ".view" / "stamp.json"


if __name__ == "__main__":
    refresh(open_run(Path(sys.argv[1])))
