"""`status`: what is done, what runs, what failed and why, from the run folder alone."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from bigtickets.running.words import command, go_on
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.state import RunState, read_state
from bigtickets.study.steps import Step


def status(root: Path, as_json: bool) -> None:
    """Print where a run stands."""
    folder = open_run(root)
    facts = status_facts(folder, read_state(folder))
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    counts = ", ".join(f"{n} {state}" for state, n in facts["steps"].items() if n)
    print(f"{folder.root}: {counts or 'nothing planned'}")
    _print_cells(facts["trials"])
    for line in facts["running"]:
        print(f"running  {line['label']}  attempt {line['attempt']} on {line['host']}")
    for line in facts["failed"]:
        print(f"failed   {line['label']}  {line['class']}: {line['message']}")
    print(f"next: {facts['next']}")


def status_facts(folder: RunFolder, state: RunState) -> dict[str, Any]:
    """Where a run stands, as JSON."""
    return {
        "run": str(folder.root),
        "steps": state.counts,
        "trials": _cells(state),
        "running": [_running(state, step) for step in state.of("running")],
        "failed": [_failed(state, step) for step in state.of("failed")],
        "next": _next(folder, state),
    }


def _cells(state: RunState) -> list[dict[str, Any]]:
    """Trials per model, task, kind and ratio by state."""
    cells: dict[tuple[Any, ...], Counter[str]] = {}
    for step in state.steps:
        if step.step == "trial":
            key = (step.model, step.task, step.data_fraction, step.kind, step.ratio)
            cells.setdefault(key, Counter())[state.states[step.id]] += 1
    names = ("model", "task", "data_fraction", "kind", "ratio")
    return [{**dict(zip(names, key, strict=True)), **counts} for key, counts in cells.items()]


def _print_cells(cells: list[dict[str, Any]]) -> None:
    for cell in cells:
        total = sum(cell.get(s, 0) for s in ("done", "running", "waiting", "failed", "blocked"))
        name = f"{cell['model']}/{cell['task']}"
        name += f"/{cell['data_fraction']:g}" if cell["data_fraction"] != 1 else ""
        print(f"{name:<24} {cell['kind']:<18} {cell['ratio']:<5g} {cell.get('done', 0)}/{total}")


def _running(state: RunState, step: Step) -> dict[str, Any]:
    claim = state.claims[step.id][-1]
    facts = {"id": step.id, "label": step.label, "attempt": claim.attempt, "host": claim.host}
    return {**facts, "started": claim.started}


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


def _next(folder: RunFolder, state: RunState) -> str:
    if state.of("failed"):
        return command("logs", folder.root, state.of("failed")[0].id)
    if state.counts["done"] == len(state.steps):
        return command("report", folder.root)
    return go_on(folder)
