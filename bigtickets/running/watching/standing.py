"""Where a run stands, as JSON: what `status` shows, from the run folder alone."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from bigtickets.running.watching.logs import last_lines
from bigtickets.running.words import command, go_on
from bigtickets.study.claims import Claim
from bigtickets.study.folder import RunFolder
from bigtickets.study.lives import Life, read_lives
from bigtickets.study.state import RunState
from bigtickets.study.steps import Step

STATES = ("done", "running", "waiting", "failed", "blocked")
LOG_LINES = 5


def standing(
    folder: RunFolder, state: RunState, jobs: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """Where a run stands; `jobs`: what SLURM says of those that were submitted for it, if any."""
    lives = read_lives(folder)
    return {
        "run": str(folder.root),
        "steps": state.counts,
        "trials": _cells(state),
        "running": [_running(state, step) for step in state.of("running")],
        "failed": [_failed(state, step) for step in state.of("failed")],
        "failures": _failures(folder, state),
        "hours_left": _hours_left(state, lives),
        "efficiency": _efficiency(lives),
        "jobs": jobs,
        "next": _next(folder, state, jobs),
    }


def over(state: RunState) -> bool:
    """Whether nothing is left that could be run without being asked for."""
    return not (state.counts["running"] or state.counts["waiting"])


def _cells(state: RunState) -> list[dict[str, Any]]:
    """Trials per model, task, kind and ratio by state."""
    counts = Counter(
        (step.model, step.task, step.data_fraction, step.kind, step.ratio, state.states[step.id])
        for step in state.steps
        if step.step == "trial"
    )
    names = ("model", "task", "data_fraction", "kind", "ratio")
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (*key, name), count in counts.items():
        cell = cells.setdefault(tuple(key), dict(zip(names, key, strict=True)))
        cell[name] = count
    return list(cells.values())


def _running(state: RunState, step: Step) -> dict[str, Any]:
    claim = state.claims[step.id][-1]
    facts = {"id": step.id, "label": step.label, "attempt": claim.attempt, "host": claim.host}
    return {**facts, "started": claim.started, "log": claim.log}


def _failed(state: RunState, step: Step) -> dict[str, Any]:
    claim = state.claims[step.id][-1]
    return {
        "id": step.id,
        "label": step.label,
        "class": claim.failure,
        "message": claim.message,
        "log": claim.log,
        "attempts": len(state.claims[step.id]),
    }


def _failures(folder: RunFolder, state: RunState) -> list[dict[str, Any]]:
    """Failed steps by class, the most frequent first, with the end of one's log."""
    classes: dict[str, list[Step]] = defaultdict(list)
    for step in state.of("failed"):
        classes[str(state.claims[step.id][-1].failure)].append(step)
    return [
        _failure(folder, name, steps, state.claims[steps[0].id][-1])
        for name, steps in sorted(classes.items(), key=lambda item: -len(item[1]))
    ]


def _failure(folder: RunFolder, name: str, steps: list[Step], first: Claim) -> dict[str, Any]:
    return {
        "class": name,
        "steps": len(steps),
        "example": steps[0].label,
        "message": first.message,
        "log": first.log,
        "lines": last_lines(folder.logs / first.log, steps[0], LOG_LINES) if first.log else [],
    }


def _hours_left(state: RunState, lives: Sequence[Life]) -> float | None:
    """Until the end, with as many steps side by side as now; None while that is not known."""
    if over(state):
        return 0.0
    if not state.counts["running"]:
        return None
    left = [s for s in state.steps if state.states[s.id] in ("waiting", "running")]
    by_model, by_stage = _seconds(lives)
    seconds = [by_model.get(f"{s.step} {s.model}", by_stage.get(s.step)) for s in left]
    known = [s for s in seconds if s is not None]
    if len(known) < len(seconds):
        return None
    # What runs now is half done on average.
    running = state.counts["running"]
    return sum(known) * (1 - running / len(left) / 2) / running / 3600


def _seconds(lives: Sequence[Life]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean seconds of a step by stage and model, and by stage."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for life in lives:
        for kind, (count, seconds) in life.steps.items():
            for key in (kind, kind.split()[0]):
                sums[key][0] += count
                sums[key][1] += seconds
    means = {key: seconds / count for key, (count, seconds) in sums.items()}
    by_stage = {key: mean for key, mean in means.items() if " " not in key}
    return {key: mean for key, mean in means.items() if " " in key}, by_stage


def _efficiency(lives: Sequence[Life]) -> dict[str, Any] | None:
    """Hours that devices trained, of the hours that workers held them; None before any worker.

    On a machine without GPUs a device is a process.
    """
    if not lives:
        return None
    allocated = sum(life.alive_s * life.processes for life in lives) / 3600
    trained = sum(life.trained_s * life.processes for life in lives) / 3600
    return {
        "device": "GPU" if any(life.device == "cuda" for life in lives) else "process",
        "hours_allocated": allocated,
        "hours_trained": trained,
        "share": trained / allocated if allocated else 0.0,
        "lives": len(lives),
    }


def _next(folder: RunFolder, state: RunState, jobs: list[dict[str, Any]] | None) -> str:
    if state.of("failed"):
        return command("logs", folder.root, state.of("failed")[0].id)
    if state.counts["done"] == len(state.steps):
        return command("report", folder.root)
    if any(job["live"] for job in jobs or ()):
        return command("status", folder.root, "--watch")
    return go_on(folder)
