"""Where a run stands, read from its files."""

import contextlib
import gc
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from bigtickets.errors import DamagedError
from bigtickets.files import write_bytes, write_json
from bigtickets.study.claims import Claim, lost_here, read_claims, tried_again
from bigtickets.study.folder import RunFolder
from bigtickets.study.provenance import environment
from bigtickets.study.spec import StudySpec
from bigtickets.study.steps import Step, expand
from bigtickets.study.writer import study_text

STEP_KEYS = frozenset(field.name for field in fields(Step))
StepState = Literal["done", "running", "failed", "blocked", "waiting"]


@dataclass(frozen=True)
class RunState:
    """The state of every step of a run."""

    steps: list[Step]
    states: dict[str, StepState]
    claims: dict[str, list[Claim]]

    def of(self, state: StepState) -> list[Step]:
        """Steps in one state, in the manifest's order."""
        return [step for step in self.steps if self.states[step.id] == state]

    @property
    def counts(self) -> dict[str, int]:
        """How many steps are in each state."""
        counts = Counter(self.states.values())
        return {s: counts[s] for s in ("done", "running", "waiting", "failed", "blocked")}


def write_run(study: StudySpec, folder: RunFolder) -> list[Step]:
    """Write what is asked for (study, manifest, environment) into a run folder."""
    steps = expand(study)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_json(folder.environment, environment())
    write_bytes(folder.study_yaml, study_text(study, folder.root).encode())
    lines = "".join(json.dumps(step.to_json()) + "\n" for step in steps)
    write_bytes(folder.manifest, lines.encode())
    return steps


def read_manifest(folder: RunFolder) -> list[Step]:
    """The steps of a run folder."""
    try:
        with no_collection():
            # One text: of a line for itself, most of the time would go into the call.
            lines = folder.manifest.read_text().splitlines()
            return [_step(values) for values in json.loads(f"[{','.join(lines)}]")]
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(
            f"{folder.manifest}: damaged ({error}); `bigtickets run` with the study writes it anew"
        ) from None


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Many new objects at once, none of them garbage: the collector would look at them in vain."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _step(values: dict[str, Any]) -> Step:
    """A step of the manifest; its own constructor takes several times as long."""
    if values.keys() != STEP_KEYS:
        raise KeyError(f"{sorted(values.keys() ^ STEP_KEYS)}")
    values["needs"] = tuple(values["needs"])
    step = object.__new__(Step)
    step.__dict__.update(values)
    return step


def done_ids(folder: RunFolder) -> set[str]:
    """Ids of the steps that have their result: one look into each folder."""
    # Data is written in place, its record last; the others appear whole.
    done = {path.parent.name for path in (folder.root / "data").glob("*/record.json")}
    for parent in (folder.trials, folder.scores, folder.tickets):
        for entry in os.scandir(parent) if parent.is_dir() else ():
            if not entry.name.startswith("."):
                done.add(entry.name.removesuffix(".json"))
    return done


def read_state(folder: RunFolder) -> RunState:
    """The state of every step: done, being worked on, failed, blocked by a failure, or waiting."""
    steps, done, claims = read_manifest(folder), done_ids(folder), read_claims(folder.claims)
    states = {step.id: _state(step, done, claims) for step in steps}
    for _ in range(3):  # data -> dense -> scores -> ticket -> trial
        for step in steps if "failed" in states.values() else ():
            stuck = any(states.get(need) in ("failed", "blocked") for need in step.needs)
            if states[step.id] == "waiting" and stuck:
                states[step.id] = "blocked"
    return RunState(steps, states, claims)


def _state(step: Step, done: set[str], claims: dict[str, list[Claim]]) -> StepState:
    if step.id in done:
        return "done"
    last = claims[step.id][-1] if step.id in claims else None
    if last is None or last.state == "released" or lost_here(last):
        return "waiting"
    if last.state == "failed":
        return "waiting" if tried_again(claims[step.id]) else "failed"
    return "running"
