"""What the commands do, one function each; `bigtickets.cli` only reads the words."""

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bigtickets.environment import speaks
from bigtickets.errors import BigticketsError, InputError, Interrupted, TrialsFailed
from bigtickets.running import local
from bigtickets.running.signals import Stop
from bigtickets.running.sizes.machine import this_machine
from bigtickets.running.sizes.sizing import Machine, resolve
from bigtickets.running.watching.logs import find_step
from bigtickets.running.watching.progress import Progress
from bigtickets.running.watching.view import StudyView
from bigtickets.running.words import command, go_on, run_again
from bigtickets.study.claims import Claims, new_owner
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.pins import pinned, pinned_as_before
from bigtickets.study.reader import read_study
from bigtickets.study.spec import StudySpec
from bigtickets.study.state import RunState, done_ids, read_manifest, read_state, write_run


def run(study_path: Path, out: Path | None, jobs: int | None) -> None:
    """The whole study on this machine, then its report."""
    stop = Stop()
    stop.install()
    study, folder = prepare(study_path, out, stop)
    steps = read_manifest(folder)
    progress, view = Progress(folder, steps, done_ids(folder)), StudyView(folder)

    def show(done: set[str]) -> None:
        progress.show(done)
        view.tick(len(done))

    try:
        local.run_workers(study, folder, jobs or local.default_jobs(study), stop, show)
    finally:
        progress.close()
        view.close()
    state = read_state(folder)
    if stop.asked():
        raise Interrupted(
            f"stopped early; {state.counts['done']} of {len(steps)} steps are done\n"
            f"next: {run_again(study_path, out)}   (goes on where it stopped)"
        )
    finish(folder, state)


def finish(folder: RunFolder, state: RunState) -> None:
    """The report, the table, and what to type next."""
    sweep(folder, state)
    failed = state.of("failed")
    if any(step.step == "trial" for step in state.of("done")):
        report(folder.root)
    if failed:
        first = state.claims[failed[0].id][-1]
        raise TrialsFailed(
            f"{len(failed)} steps failed, {len(state.of('blocked'))} more wait for them; "
            f"first: {failed[0].label} ({first.failure}): {first.message}\n"
            f"next: {command('status', folder.root)}   then: {command('retry', folder.root)}"
        )
    if state.counts["done"] < len(state.steps):
        raise BigticketsError(
            f"{folder.root}: {state.counts} although no worker runs; start the study again"
        )


def sweep(folder: RunFolder, state: RunState) -> None:
    """Remove what a worker killed between its commit and its tidying left of finished steps."""
    claims = Claims(folder.claims, new_owner())
    for step in state.of("done"):
        if step.id in state.claims:
            claims.forget(step.id)
    for work in (folder.root / "work").glob("*"):
        if state.states.get(work.name) == "done":
            shutil.rmtree(work, ignore_errors=True)
    for checkpoints in folder.trials.glob("*/checkpoints"):
        shutil.rmtree(checkpoints, ignore_errors=True)


def prefetch(study_path: Path, out: Path | None) -> None:
    """Everything that needs a network or comes before the first trial."""
    stop = Stop()
    stop.install()
    _, folder = prepare(study_path, out, stop)
    print(f"everything is in {folder.root}\nnext: {run_again(study_path, out)}")


def prepare(
    study_path: Path,
    out: Path | None,
    stop: Stop,
    tokenise: bool = True,
    machine: Callable[[], Machine] = this_machine,
) -> tuple[StudySpec, RunFolder]:
    """Check all, fetch and tokenise what is missing, then write the run folder.

    Nothing is written before everything has been checked. `machine`: what trials will run on, for
    a study that leaves ZeRO stage or processes to be chosen.
    """
    study = read_study(study_path)
    folder = RunFolder((out or Path("runs") / study.study).resolve())
    study = pinned_as_before(study, folder)
    _check_folder(folder, study)
    print(f"study {study.study} in {folder.root}: checking models and data", flush=True)
    # Torch and its company take seconds to import: bad keys are told before.
    from bigtickets.running.prefetch import check_models, fetch_hub_models, prepare_data
    from bigtickets.running.steps.metric_scripts import (
        check_scripts,
        fetch_hub_scripts,
        keep_scripts,
    )

    study = pinned(study, fetch_hub_models(study.models, say))
    if fetch_hub_scripts(study.tasks, say):
        # A script's content is part of its task's identity.
        study = dataclasses.replace(study, tasks=read_study(study_path).tasks)
    study = resolve(study, machine)
    check_models(study)
    check_scripts(study.tasks)
    if tokenise:
        prepare_data(study, folder, say, stop.raise_if_asked)
    study = keep_scripts(study, folder)
    write_run(study, folder)
    return study, folder


def report(root: Path) -> None:
    """Table, figures and pages from what is there."""
    from bigtickets.analysis.report import build_report
    from bigtickets.analysis.table import read_table
    from bigtickets.analysis.tensorboard import write_study_view

    folder = open_run(root)
    paths = build_report(folder)
    write_study_view(folder)
    from bigtickets.analysis.report import summary_table

    print(summary_table(read_table(folder)))
    print(f"\nreport: {paths.html}")
    print(f"next: open it in a browser, or: tensorboard --logdir {shlex.quote(str(folder.tb))}")


def retry(root: Path, names: Sequence[str] = ()) -> None:
    """Let failed steps be tried again: all of them, or those with these ids or labels."""
    folder = open_run(root)
    state = read_state(folder)
    chosen = [find_step(state.steps, name) for name in names] or state.of("failed")
    claims = Claims(folder.claims, new_owner())
    for step in chosen:
        if state.states[step.id] != "failed":
            raise InputError(
                f"{step.label}: is {state.states[step.id]}; only failed steps can be tried again"
            )
    for step in chosen:
        claims.reopen(step.id)
    print(f"{len(chosen)} failed steps may be tried again")
    if chosen:
        print(f"next: {go_on(folder)}")


def say(text: str) -> None:
    """A line for the user, at once."""
    print(text, flush=True)


def _check_folder(folder: RunFolder, study: StudySpec) -> None:
    """An existing folder must be this study's, or empty."""
    if folder.manifest.is_file():
        other = read_study_name(folder.study_yaml)
        if other not in (None, study.study):
            raise InputError(
                f"{folder.root}: holds the study {other!r}, not {study.study!r}; "
                "choose another --out"
            )
    elif folder.root.is_file() or (folder.root.is_dir() and any(folder.root.iterdir())):
        # What a start that was killed before its manifest may have left.
        known = {"data", "metrics", "claims", "logs", "environment.json", "study.yaml"}
        names = set() if folder.root.is_file() else {p.name for p in folder.root.iterdir()}
        if folder.root.is_file() or {n for n in names if n[0] != "."} - known:
            raise InputError(
                f"{folder.root}: exists and is no run folder; choose another --out, or empty it"
            )


def read_study_name(path: Path) -> str | None:
    """The name of the study in a study.yaml; None if there is none to read."""
    from bigtickets.study.parsing import load_yaml

    try:
        return str(load_yaml(path).get("study"))
    except BigticketsError:
        return None


def guarded(action: Callable[[], object]) -> int:
    """Run a command; its exit code, with one or two lines on stderr if it is not 0.

    Of a group's ranks, which fail alike, one says so.
    """
    try:
        action()
        return 0
    except BigticketsError as error:
        return _told(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _told("interrupted", Interrupted.exit_code)
    except BrokenPipeError:  # `bigtickets status RUN | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        return _told(f"{error.filename or ''}: {error.strerror or error}", InputError.exit_code)


def _told(text: str, code: int) -> int:
    import os
    import traceback

    if os.environ.get("BIGTICKETS_DEBUG") == "1":
        traceback.print_exc()
    if speaks():
        print(f"bigtickets: {text}", file=sys.stderr)
    return code
