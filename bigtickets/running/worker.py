"""A worker: one torchrun group that takes steps from a run folder until none is left.

Started as `python -m bigtickets.running.worker RUN`, under torchrun. It stays warm over many
trials, because most of them are shorter than a process's start.
"""

import argparse
import contextlib
import errno
import gc
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from bigtickets.errors import BigticketsError, DamagedError, InputError, Interrupted
from bigtickets.running.context import Context
from bigtickets.running.cutting import run_ticket
from bigtickets.running.logs import MARK
from bigtickets.running.prefetch import run_data
from bigtickets.running.scoring import run_scores
from bigtickets.running.signals import Stop, parent_gone
from bigtickets.running.trial import run_trial
from bigtickets.study.claims import HEARTBEAT_S, Claim, Claims, FailureClass, new_owner
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.reader import read_study
from bigtickets.study.steps import Step, before_trials, expand
from bigtickets.training.ranks import Ranks, process_group

STAGES = {"data": run_data, "trial": run_trial, "scores": run_scores, "ticket": run_ticket}
POLL_S = 0.5
LONG_S = 600.0
"""A trial that takes longer is worth starting shortly before the end: it leaves a checkpoint."""


def main(arguments: list[str] | None = None) -> int:
    """Work on a run folder; the exit code is that of the command line (75: stopped early)."""
    parser = argparse.ArgumentParser(prog="bigtickets.running.worker")
    parser.add_argument("run", type=Path)
    # Not `--log`: torchrun takes every prefix of its own options for itself.
    parser.add_argument("--worker-log", default="", help="name of this worker's log in RUN/logs")
    parser.add_argument(
        "--processes", type=int, help="take only steps of models with so many processes per trial"
    )
    parser.add_argument(
        "--before-trials", action="store_true", help="take only steps that others wait for"
    )
    parser.add_argument("--until", type=float, help="stop at that time, in seconds since the epoch")
    parser.add_argument(
        "--patience", type=float, default=math.inf, help="seconds to wait for others' steps"
    )
    options = parser.parse_args(arguments)
    stop = Stop(options.until)
    stop.install()
    with process_group() as ranks:
        folder = open_run(options.run)
        context = make_context(folder, ranks, stop, options.worker_log)
        work(context, choose(context, options.processes, options.before_trials), options.patience)
        return Interrupted.exit_code if ranks.any(stop.asked())[0] else 0


def choose(context: Context, processes: int | None, early: bool) -> list[str]:
    """Ids of the steps of models with so many processes per trial; `early`: those others need."""
    needed = before_trials(context.steps.values()) if early else context.steps
    return [
        step_id
        for step_id, step in context.steps.items()
        if step_id in needed
        and processes in (None, context.model(step).execution.processes_per_trial)
    ]


def make_context(folder: RunFolder, ranks: Ranks, stop: Stop, log: str = "") -> Context:
    """The view of a run folder that this group of ranks shares."""
    study = read_study(folder.study_yaml)
    owner = ranks.from_first(new_owner())
    return Context(
        folder=folder,
        study=study,
        steps={step.id: step for step in expand(study)},
        ranks=ranks,
        claims=Claims(folder.claims, owner, log),
        stop=stop,
    )


def work(context: Context, chosen: Iterable[str], patience_s: float = math.inf) -> None:
    """Take and run the `chosen` steps until all are done, failed, or cannot be reached.

    While others work on what is needed it waits, but no longer than `patience_s`.
    """
    remaining = list(chosen)
    longest: dict[str, float] = {}
    waits_since = time.monotonic()
    while not context.ranks.any(context.stop.asked())[0]:
        found = _next(context, remaining, longest) if context.ranks.first else None
        if found == "wait" and time.monotonic() - waits_since > patience_s:
            found = "none"
        found = context.ranks.from_first(found)
        if found == "none":
            return
        if found == "late":
            context.stop.ask()
            return
        if found == "wait":
            time.sleep(POLL_S)
            continue
        step, started = context.steps[found["step_id"]], time.monotonic()
        _run(context, step, Claim(**found))
        waits_since = time.monotonic()
        kind = f"{step.step} {step.model}"
        longest[kind] = max(longest.get(kind, 0), waits_since - started)


def _fits(context: Context, step: Step, longest: dict[str, float]) -> bool:
    """Whether a step can end in the time that is left, or is long enough to be cut in two.

    `longest`: seconds of the longest step of a stage and model so far; an unknown one is tried.
    """
    seconds = longest.get(f"{step.step} {step.model}", 0)
    resumable = step.step == "trial" and seconds > LONG_S
    return resumable or seconds <= context.stop.seconds_left()


def _next(context: Context, remaining: list[str], longest: dict[str, float]) -> dict | str:
    """The claim on the next step; "wait" if others still work on what is needed, "late" if there
    is no time for what is left, or "none"."""
    waiting = late = False
    for step_id in list(remaining):
        if context.done(step_id):
            remaining.remove(step_id)
            continue
        if not all(context.done(need) for need in context.steps[step_id].needs):
            continue
        if not _fits(context, context.steps[step_id], longest):
            late = True
            continue
        claim = context.claims.take(step_id)
        if claim is None:
            last = context.claims.last(step_id)
            waiting = waiting or (last is not None and last.state == "running")
            continue
        if context.done(step_id):  # finished by another between the look and the claim
            context.claims.forget(step_id)
            continue
        return asdict(claim)
    if late:
        return "late"
    return "wait" if waiting else "none"


def _run(context: Context, step: Step, claim: Claim) -> None:
    """Run one step under its claim; whatever happens, the claim says it afterwards."""
    if context.ranks.first:
        print(f"{MARK}{step.id} {step.label} attempt {claim.attempt}", flush=True)
    started = time.monotonic()
    try:
        with _heartbeat(context, claim):
            STAGES[step.step](context, step, claim)
    except Interrupted as error:
        context.stop.ask()
        if context.ranks.first:
            # TERM comes from a scheduler that needs the machine for somebody else.
            taken = context.stop.terminated
            context.claims.release(claim, *(("preempted", str(error)) if taken else ()))
        return
    except Exception as error:
        _fail(context, claim, error)
        if context.ranks.world_size > 1 or context.ranks.device.type == "cuda":
            # Other ranks may be waiting in a collective, and a device that has reported an error
            # reports it for ever: only a new group is clean.
            os._exit(BigticketsError.exit_code)
        return
    # Engine and model refer to each other; a worker that waited for the collector would grow.
    gc.collect()
    if context.ranks.first and context.done(step.id):
        context.claims.forget(step.id)
        print(f"done in {time.monotonic() - started:.1f} s", flush=True)


def _fail(context: Context, claim: Claim, error: Exception) -> None:
    """Put the failure's class and one line into the claim, the whole of it into the log."""
    traceback.print_exc()
    sys.stderr.flush()
    text = str(error).strip()
    message = text.splitlines()[0][:500] if text else type(error).__name__
    context.claims.release(claim, failure_class(error), message)


def failure_class(error: BaseException) -> FailureClass:
    """What kind of trouble an exception is: it decides whether the step is tried again."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, InputError | DamagedError):
        return "input"
    if isinstance(error, MemoryError) or "OutOfMemory" in name or "can't allocate memory" in text:
        return "oom"
    if isinstance(error, FloatingPointError):
        return "diverged"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return "infra"
    return "infra" if "Dist" in name or "NCCL" in text or "gloo" in text else "defect"


@contextlib.contextmanager
def _heartbeat(context: Context, claim: Claim) -> Iterator[None]:
    """Show life, and stop when the parent is gone, for as long as a step runs."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_S):
            if context.ranks.first:
                context.claims.beat(claim)
            if parent_gone():
                context.stop.ask()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
