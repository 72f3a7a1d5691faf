"""A worker: one torchrun group that takes steps from a run folder until none is left.

Started as `python -m bigtickets.running.worker RUN`, under torchrun. It stays warm over many
trials, because most of them are shorter than a process's start.
"""

import argparse
import contextlib
import errno
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from bigtickets.errors import BigticketsError, DamagedError, InputError, Interrupted
from bigtickets.running.commands import guarded
from bigtickets.running.context import Context
from bigtickets.running.cutting import run_ticket
from bigtickets.running.exit_codes import leave_code, run_rank
from bigtickets.running.logs import MARK
from bigtickets.running.prefetch import run_data
from bigtickets.running.scoring import run_scores
from bigtickets.running.signals import Stop, parent_gone
from bigtickets.running.trial import run_trial
from bigtickets.study.claims import HEARTBEAT_S, Claim, Claims, FailureClass, new_owner
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.reader import read_study
from bigtickets.study.steps import Step, expand
from bigtickets.training.ranks import Ranks, process_group

STAGES = {"data": run_data, "trial": run_trial, "scores": run_scores, "ticket": run_ticket}
POLL_S = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Work on a run folder; the exit code is that of the command line (75: stopped early)."""
    parser = argparse.ArgumentParser(prog="bigtickets.running.worker")
    parser.add_argument("run", type=Path)
    # Not `--log`: torchrun takes every prefix of its own options for itself.
    parser.add_argument("--worker-log", default="", help="name of this worker's log in RUN/logs")
    parser.add_argument(
        "--processes", type=int, help="take only steps of models with so many processes per trial"
    )
    options = parser.parse_args(arguments)
    return guarded(lambda: _work(options))


def _work(options: argparse.Namespace) -> None:
    stop = Stop()
    stop.install()
    with process_group() as ranks:
        folder = ranks.each(lambda: open_run(options.run))
        context = make_context(folder, ranks, stop, options.worker_log)
        chosen = [
            step_id
            for step_id, step in context.steps.items()
            if options.processes in (None, context.model(step).execution.processes_per_trial)
        ]
        work(context, chosen)
        stopped = ranks.any(stop.asked())[0]
    if stopped:
        raise Interrupted("stopped early; what is done is kept")


def make_context(folder: RunFolder, ranks: Ranks, stop: Stop, log: str = "") -> Context:
    """The view of a run folder that this group of ranks shares."""
    study = ranks.each(lambda: read_study(folder.study_yaml))
    owner = ranks.from_first(new_owner())
    return Context(
        folder=folder,
        study=study,
        steps={step.id: step for step in expand(study)},
        ranks=ranks,
        claims=Claims(folder.claims, owner, log),
        stop=stop,
    )


def work(context: Context, chosen: Iterable[str]) -> None:
    """Take and run the `chosen` steps until all are done, failed, or cannot be reached."""
    remaining = list(chosen)
    while not context.ranks.any(context.stop.asked())[0]:
        found = _next(context, remaining) if context.ranks.first else None
        found = context.ranks.from_first(found)
        if found == "none":
            return
        if found == "wait":
            time.sleep(POLL_S)
            continue
        _run(context, context.steps[found["step_id"]], Claim(**found))


def _next(context: Context, remaining: list[str]) -> dict | str:
    """The claim on the next step; "wait" if others still work on what is needed, or "none"."""
    waiting = False
    for step_id in list(remaining):
        if context.done(step_id):
            remaining.remove(step_id)
            continue
        if not all(context.done(need) for need in context.steps[step_id].needs):
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
    return "wait" if waiting else "none"


def _run(context: Context, step: Step, claim: Claim) -> None:
    """Run one step under its claim; whatever happens, the claim says it afterwards."""
    if context.ranks.first:
        print(f"{MARK}{step.id} {step.label} attempt {claim.attempt}", flush=True)
    started = time.monotonic()
    try:
        with _heartbeat(context, claim):
            STAGES[step.step](context, step, claim)
    except Interrupted:
        context.stop.ask()
        if context.ranks.first:
            context.claims.release(claim)
        return
    except Exception as error:
        _fail(context, claim, error)
        if context.ranks.world_size > 1 or context.ranks.device.type == "cuda":
            # Other ranks may be waiting in a collective, and a device that has reported an error
            # reports it for ever: only a new group is clean.
            code = error.exit_code if isinstance(error, BigticketsError) else 1
            leave_code(code)
            os._exit(code)
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
    sys.exit(run_rank(main))
