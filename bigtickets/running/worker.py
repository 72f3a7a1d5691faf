"""A worker: one torchrun group that takes steps from a run folder until none is left.

Started as `python -m bigtickets.running.worker RUN`, under torchrun. It stays warm over many
trials, because most of them are shorter than a process's start.
"""

import argparse
import contextlib
import dataclasses
import errno
import gc
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import psutil

from bigtickets.errors import BigticketsError, DamagedError, InputError, Interrupted
from bigtickets.files import read_json
from bigtickets.running.commands import guarded
from bigtickets.running.context import Context
from bigtickets.running.groups.exit_codes import leave_code, run_rank
from bigtickets.running.prefetch import run_data
from bigtickets.running.queue import Queue
from bigtickets.running.signals import Stop, parent_gone
from bigtickets.running.steps.cutting import run_ticket
from bigtickets.running.steps.scoring import run_scores
from bigtickets.running.steps.trial import run_trial
from bigtickets.running.watching.logs import MARK
from bigtickets.study.claims import HEARTBEAT_S, Claim, Claims, FailureClass, new_owner
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.lives import Diary, Life
from bigtickets.study.reader import read_study
from bigtickets.study.steps import Step, before_trials, expand
from bigtickets.training.ranks import Ranks, process_group
from bigtickets.training.watch import last_words

STAGES = {"data": run_data, "trial": run_trial, "scores": run_scores, "ticket": run_ticket}
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
    return guarded(lambda: _work(options))


def _work(options: argparse.Namespace) -> None:
    stop = Stop(options.until)
    stop.install()
    with process_group() as ranks:
        folder = ranks.each(lambda: open_run(options.run))
        context = make_context(folder, ranks, stop, options.worker_log)
        chosen = choose(context, options.processes, options.before_trials)
        with _diary(context) as diary:
            work(dataclasses.replace(context, diary=diary), chosen, options.patience)
        stopped = ranks.any(stop.asked())[0]
    if stopped:
        raise Interrupted("stopped early; what is done is kept")


def choose(context: Context, processes: int | None, early: bool) -> list[str]:
    """Ids of the steps of models with so many processes per trial; `early`: those others need."""
    needed = before_trials(context.steps.values()) if early else context.steps
    return [
        step_id
        for step_id, step in context.steps.items()
        if step_id in needed and processes in (None, context.model(step).execution.processes)
    ]


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


@contextlib.contextmanager
def _diary(context: Context) -> Iterator[Diary | None]:
    """The first rank's notes on this worker's life."""
    if not context.ranks.first:
        yield None
        return
    life = Life(
        owner=context.claims.owner,
        host=socket.gethostname(),
        log=context.claims.log,
        device=context.ranks.device.type,
        processes=context.ranks.world_size,
        started=psutil.Process().create_time(),
    )
    with Diary(context.folder, life) as diary:
        yield diary


def work(context: Context, chosen: Iterable[str], patience_s: float = math.inf) -> None:
    """Take and run the `chosen` steps until all are done, failed, or cannot be reached.

    While others work on what is needed it waits, but no longer than `patience_s`.
    """
    queue = Queue(context, chosen)
    # The steps of a large study stay until the end: the collector, which is called after each of
    # them, need not look at the others.
    gc.freeze()
    longest: dict[str, float] = {}
    waits_since = time.monotonic()
    while not context.ranks.any(context.stop.asked())[0]:
        found = _next(context, queue, longest) if context.ranks.first else None
        if found == "wait" and time.monotonic() - waits_since > patience_s:
            found = "none"
        found = context.ranks.from_first(found)
        if found == "none":
            return
        if found == "late":
            context.stop.ask()
            return
        if found == "wait":
            time.sleep(queue.pause_s)
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


def _next(context: Context, queue: Queue, longest: dict[str, float]) -> dict | str:
    """The claim on the next step, as JSON, or why there is none."""
    found = queue.next(lambda step: _fits(context, step, longest))
    return dataclasses.asdict(found) if isinstance(found, Claim) else found


def _run(context: Context, step: Step, claim: Claim) -> None:
    """Run one step under its claim; whatever happens, the claim says it afterwards."""
    if context.ranks.first:
        print(f"{MARK}{step.id} {step.label} attempt {claim.attempt}", flush=True)
    started = time.monotonic()
    try:
        with _heartbeat(context, claim), last_words(partial(_lost, context, claim)):
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
            code = error.exit_code if isinstance(error, BigticketsError) else 1
            leave_code(code)
            os._exit(code)
        return
    # Engine and model refer to each other; a worker that waited for the collector would grow.
    gc.collect()
    if context.ranks.first and context.done(step.id):
        context.claims.forget(step.id)
        seconds = time.monotonic() - started
        _note(context, step, claim, seconds)
        print(f"done in {seconds:.1f} s", flush=True)


def _note(context: Context, step: Step, claim: Claim, seconds: float) -> None:
    """Put a finished step into the diary; if another life was first, it has it in its own."""
    if context.diary is None:
        return
    trained_s = 0.0
    if step.step == "trial":
        record = read_json(context.folder.result("trial", step.id))
        if record["attempt"] != claim.attempt:
            return
        trained_s = record["timings"]["train_s"]
    context.diary.finished(f"{step.step} {step.model}", seconds, trained_s)


def _fail(context: Context, claim: Claim, error: Exception) -> None:
    """Put the failure's class and one line into the claim, the whole of it into the log."""
    traceback.print_exc()
    sys.stderr.flush()
    text = str(error).strip()
    message = text.splitlines()[0][:500] if text else type(error).__name__
    context.claims.release(claim, failure_class(error), message)


def _lost(context: Context, claim: Claim, text: str) -> None:
    """A rank hangs or is gone: trouble of the machines, until it happens again and again."""
    if context.ranks.first:
        context.claims.release(claim, "infra", text)


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
