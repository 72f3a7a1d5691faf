"""`logs`: a step's part of its worker's log. Workers stay warm, so a log holds many steps."""

import time
from pathlib import Path

from bigtickets.errors import InputError
from bigtickets.files import read_json
from bigtickets.study.claims import Claim, attempts_at, tried_again
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.state import read_manifest
from bigtickets.study.steps import Step

MARK = "=== "
"""Begins the line of a log that says which step follows."""
POLL_S = 1.0


class Section:
    """The lines of a log that belong to one step, as they come."""

    def __init__(self, path: Path, step: Step) -> None:
        self._path, self._mark = path, f"{MARK}{step.id} "
        self._read, self._inside = 0, False

    def more(self) -> list[str]:
        """Whole lines since the last call, between this step's marks and the next ones."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = []
        for line in whole.decode(errors="replace").splitlines():
            if line.startswith(MARK):
                self._inside = line.startswith(self._mark)
            if self._inside:
                lines.append(line)
        return lines


def logs(root: Path, trial: str, follow: bool) -> None:
    """Print a step's part of its worker's log; `trial` is an id, its beginning, or a label.

    With `follow` until the step is done or has failed, through the logs of all workers that take
    it meanwhile.
    """
    folder = open_run(root)
    step = find_step(read_manifest(folder), trial)
    sections: dict[str, Section] = {}
    while True:
        # Asked before the log is read: what is written last must not be missed.
        over, name = _over(folder, step), _log_name(folder, step)
        if name and (folder.logs / name).is_file():
            section = sections.setdefault(name, Section(folder.logs / name, step))
            for line in section.more():
                print(line, flush=True)
        elif not follow:
            raise InputError(f"{step.label}: has no log; see `bigtickets status {root}`")
        if over or not follow:
            return
        time.sleep(POLL_S)


def last_lines(path: Path, step: Step, lines: int) -> list[str]:
    """The end of a step's part of a log; empty if the log is gone."""
    try:
        return Section(path, step).more()[-lines:]
    except OSError:
        return []


def find_step(steps: list[Step], name: str) -> Step:
    """The one step with that id, beginning of an id, or label."""
    found = [s for s in steps if name in (s.id, s.label)]
    found = found or [s for s in steps if s.id.startswith(name) or s.label.startswith(name)]
    if not found:
        raise InputError(f"{name}: no such step; `bigtickets status RUN --json` lists them")
    if len(found) > 1:
        some = ", ".join(s.label for s in found[:3])
        raise InputError(f"{name}: fits {len(found)} steps ({some}, ...); give more of it")
    return found[0]


def _over(folder: RunFolder, step: Step) -> bool:
    """Whether a step is done, or failed and is not tried again."""
    if folder.result(step.step, step.id).exists():
        return True
    attempts = attempts_at(folder.claims, step.id)
    return bool(attempts) and attempts[-1].state == "failed" and not tried_again(attempts)


def _log_name(folder: RunFolder, step: Step) -> str:
    result = folder.result(step.step, step.id)
    if step.step in ("trial", "scores") and result.exists():
        return str(read_json(result).get("log", ""))
    attempts: list[Claim] = attempts_at(folder.claims, step.id)
    return attempts[-1].log if attempts else ""
