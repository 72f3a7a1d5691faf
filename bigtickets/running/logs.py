"""`logs`: a step's part of its worker's log. Workers stay warm, so a log holds many steps."""

import time
from pathlib import Path

from bigtickets.errors import InputError
from bigtickets.files import read_json
from bigtickets.study.claims import read_claims
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.state import read_manifest
from bigtickets.study.steps import Step

MARK = "=== "
"""Begins the line of a log that says which step follows."""


def logs(root: Path, trial: str, follow: bool) -> None:
    """Print a step's part of its worker's log; `trial` is an id, its beginning, or a label."""
    folder = open_run(root)
    step = find_step(read_manifest(folder), trial)
    path = folder.logs / _log_name(folder, step)
    if not path.is_file():
        raise InputError(f"{step.label}: has no log yet; see `bigtickets status {root}`")
    printed = 0
    while True:
        lines = _section(path, step)
        print("\n".join(lines[printed:]), flush=True) if lines[printed:] else None
        printed = len(lines)
        if not follow or folder.result(step.step, step.id).exists():
            return
        time.sleep(1)


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


def _log_name(folder: RunFolder, step: Step) -> str:
    result = folder.result(step.step, step.id)
    if step.step in ("trial", "scores") and result.exists():
        return str(read_json(result).get("log", ""))
    claims = read_claims(folder.claims).get(step.id)
    return claims[-1].log if claims else ""


def _section(path: Path, step: Step) -> list[str]:
    """The lines of a log between this step's marks and the next ones."""
    lines, inside = [], False
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith(MARK):
            inside = line.startswith(f"{MARK}{step.id} ")
        if inside:
            lines.append(line)
    return lines
