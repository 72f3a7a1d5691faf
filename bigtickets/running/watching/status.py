"""`status`: what is done, what runs, what failed and why; once, or again and again."""

import contextlib
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from bigtickets.errors import BigticketsError
from bigtickets.running.slurm.queue import job_facts, query
from bigtickets.running.watching.standing import STATES, over, standing
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.state import no_collection, read_state

ASK_EVERY_S = 30.0
"""SLURM's controller serves everybody: files can be looked at more often."""
MOST_LINES = 20
"""Of steps that run: a large cluster runs thousands."""


def status(root: Path, as_json: bool, every_s: float | None = None) -> None:
    """Print where a run stands; with `every_s` again and again, until it is over or Ctrl-C."""
    folder = open_run(root)
    jobs = _Jobs(folder)
    try:
        while True:
            with no_collection():
                state = read_state(folder)
                facts = standing(folder, state, jobs.facts())
                # One line per look, so that a program can read them as they come.
                shown, ended = json.dumps(facts) if as_json else text(facts), over(state)
            if every_s and sys.stdout.isatty() and not as_json:
                print("\x1b[H\x1b[2J", end="")  # cursor to the corner, screen empty
            print(shown, flush=True)
            if every_s is None or ended:
                return
            del state, facts  # before the next look: they are large
            time.sleep(every_s)
    except KeyboardInterrupt:
        if every_s is None:
            raise


class _Jobs:
    """What SLURM says of the jobs of a run, asked for at most every ASK_EVERY_S."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._asked = float("-inf")
        self._facts: list[dict[str, Any]] | None = None

    def facts(self) -> list[dict[str, Any]] | None:
        """None if nothing was submitted, or SLURM does not answer and never did."""
        if self._folder.slurm.is_dir() and time.monotonic() - self._asked > ASK_EVERY_S:
            self._asked = time.monotonic()
            with contextlib.suppress(BigticketsError):
                self._facts = job_facts(self._folder, query())
        return self._facts


def text(facts: dict[str, Any]) -> str:
    """For people."""
    counts = ", ".join(f"{n} {state}" for state, n in facts["steps"].items() if n)
    lines = [f"{facts['run']}: {counts or 'nothing planned'}"]
    lines += _cells(facts["trials"])
    lines += _running(facts["running"])
    for failure in facts["failures"]:
        lines.append(f"failed   {failure['steps']} {failure['class']}: {failure['message']}")
        lines.append(f"         {failure['example']}, log {failure['log'] or '(none)'}")
        lines += [f"         | {line}" for line in failure["lines"]]
    lines += [_job(job) for job in facts["jobs"] or ()]
    lines += _times(facts)
    return "\n".join([*lines, f"next: {facts['next']}"])


def _cells(cells: list[dict[str, Any]]) -> list[str]:
    """Trials by state, a line per model, task and ratio."""
    rows: dict[tuple[str, float], Counter[str]] = defaultdict(Counter)
    for cell in cells:
        name = f"{cell['model']}/{cell['task']}"
        name += f"/{cell['data_fraction']:g}" if cell["data_fraction"] != 1 else ""
        rows[name, cell["ratio"]].update({s: cell.get(s, 0) for s in STATES})
    shown = [s for s in STATES if s == "done" or any(row[s] for row in rows.values())]
    lines = ["trials                   ratio " + " ".join(f"{s:>8}" for s in shown)]
    for (name, ratio), row in rows.items():
        done = f"{row['done']}/{row.total()}"
        others = (str(row[s] or "-") for s in shown[1:])
        lines.append(f"{name:<24} {ratio:<5g} " + " ".join(f"{n:>8}" for n in (done, *others)))
    return lines if rows else []


def _running(steps: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"running  {step['label']}  attempt {step['attempt']} on {step['host']}"
        for step in steps[:MOST_LINES]
    ]
    more = len(steps) - MOST_LINES
    return [*lines, f"running  ... and {more} more"] if more > 0 else lines


def _job(job: dict[str, Any]) -> str:
    """`job 12  trials-1x  3 RUNNING, 5 PENDING (Priority)`."""
    states = ", ".join(f"{count} {state}" for state, count in job["states"].items())
    why = f" ({', '.join(job['reasons'])})" if job["reasons"] else ""
    # As after a crash of SLURM's controller: such a job waits for ever.
    held = any("held" in reason.lower() for reason in job["reasons"])
    remedy = f"; held: `scontrol release {job['job']}`" if held else ""
    return f"job {job['job'] or '?'}  {job['name']}  {states or 'ended'}{why}{remedy}"


def _times(facts: dict[str, Any]) -> list[str]:
    """Time left, and what became of the hours so far."""
    hours, spent, lines = facts["hours_left"], facts["efficiency"], []
    if hours:
        shown = f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"
        lines.append(f"about {shown} left, with {facts['steps']['running']} steps side by side")
    if spent:
        lines.append(
            f"{spent['hours_trained']:.3g} {spent['device']}-hours of training in "
            f"{spent['hours_allocated']:.3g} allocated ({spent['share']:.0%}), "
            f"{spent['lives']} lives of workers"
        )
    return lines
