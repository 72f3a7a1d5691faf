"""Inside a job: `python -m bigtickets.running.slurm.job STAGE RUN ...`, started by slurm/job.sh.

A slot keeps its groups of ranks going until nothing is left for them (exit 0) or its time is up
(exit 75: job.sh queues the job again). Prefetch tokenises. Finish submits what is left, if jobs
have ended without doing it, and writes the report.
"""

import argparse
import signal
import socket
import sys
import time
from pathlib import Path

from bigtickets.errors import BigticketsError, Interrupted
from bigtickets.running.commands import guarded, prefetch, report, sweep
from bigtickets.running.local import Slot, run_slots
from bigtickets.running.signals import Stop
from bigtickets.running.slurm import journal
from bigtickets.running.slurm.commands import goes_on
from bigtickets.running.slurm.submission import alone, look, send
from bigtickets.running.slurm.work import processes_of
from bigtickets.running.watching.view import StudyView
from bigtickets.study.claims import STALE_AFTER_S, read_claims
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.reader import read_study
from bigtickets.study.spec import StudySpec
from bigtickets.study.state import done_ids, read_state

PATIENCE_S = 1.5 * STALE_AFTER_S
"""Longer than a dead owner's claim takes to be stale: its step is then this slot's."""
BAD_NODE = 3
"""Failures of the machine on one node, within one life of a slot, before the slot leaves it."""
LOOK_S = 10.0
MOST_ROUNDS = 3
"""Submissions in a row by the last job that got nowhere."""


def main(arguments: list[str] | None = None) -> int:
    """Do one job's work; its exit code."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: _do(options))


def _do(options: argparse.Namespace) -> None:
    stages = {"prefetch": _prefetch, "finish": _finish, "scoring": _slots, "trials": _slots}
    if _admitted(options):
        stages[options.stage](options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bigtickets.running.slurm.job")
    parser.add_argument("stage", choices=["prefetch", "scoring", "trials", "finish"])
    parser.add_argument("run", type=Path)
    parser.add_argument("--uid", required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--per-node", type=int, default=1, help="ranks on each node")
    # What job.sh knows of the job.
    parser.add_argument("--job", default="0", help="its number, as squeue names it")
    parser.add_argument("--attempt", default="0", help="its life and try: 0-0")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--node", type=int, default=0, help="which of them this is, from 0")
    parser.add_argument("--head", default="localhost", help="the first of them")
    parser.add_argument("--cpus", type=int, default=1, help="of this node")
    parser.add_argument("--until", type=float, help="stop then, in seconds since the epoch")
    return parser


def _admitted(options: argparse.Namespace) -> bool:
    """Whether the journal knows this job, has not given it up for another, and all goes on.

    A last job that was submitting while the run was cancelled leaves jobs that `cancel` missed.
    """
    folder = open_run(options.run)
    entry = journal.entry_of(folder, options.uid)
    if entry is not None and entry.state in journal.COUNTED and goes_on(folder):
        return True
    print(f"job {options.job}: this submission was given up or cancelled; nothing to do")
    return False


def _slots(options: argparse.Namespace) -> None:
    """Work until nothing is left or time is up; Interrupted then."""
    folder = open_run(options.run)
    stop = Stop(options.until)
    stop.install()
    watch = _Watch(folder, options)
    try:
        threads = threads_of(read_study(folder.study_yaml), options)
        run_slots(folder, groups(folder, options, threads), stop, watch.look)
    finally:
        watch.close()
    if options.node:
        return  # the first node says how it ended: srun ends all tasks at the first bad code
    if stop.terminated:
        raise Terminated("preempted or cancelled")
    if stop.asked():
        raise Interrupted("stopped before the time limit")


def threads_of(study: StudySpec, options: argparse.Namespace) -> int:
    """CPU threads of one rank: as the study says, or its share of the job's CPUs."""
    asked = {processes_of(model): model.execution.threads for model in study.models}
    threads = asked.get(options.processes, "auto")
    return max(1, options.cpus // options.per_node) if threads == "auto" else threads


def groups(folder: RunFolder, options: argparse.Namespace, threads: int) -> list[Slot]:
    """The groups of ranks of this node, side by side; or its part of one that spans nodes."""
    local = options.per_node // options.groups
    worker = ["--processes", str(options.processes), "--patience", str(PATIENCE_S)]
    worker += ["--until", str(options.until)] if options.until else []
    worker += ["--before-trials"] if options.stage == "scoring" else []
    node = f"-node{options.node}" if options.node else ""
    return [
        Slot(
            number=number,
            processes=local,
            threads=threads,
            log=folder.logs / f"worker-{options.job}-{number}{node}.log",
            worker=tuple(worker),
            over_nodes=_over_nodes(options) if options.nodes > 1 else (),
        )
        for number in range(options.groups)
    ]


def _over_nodes(options: argparse.Namespace) -> tuple[str, ...]:
    """The nodes of a job meet on its first one, under a name that no other life of it has."""
    return ("--job", f"{options.job}-{options.attempt}", "--master-addr", options.head)


class Terminated(BigticketsError):
    """SLURM ends this life of the job, and decides itself whether there is another."""

    exit_code = 128 + signal.SIGTERM


class _Watch:
    """What a slot does besides: keep TensorBoard's view, and leave a bad node."""

    def __init__(self, folder: RunFolder, options: argparse.Namespace) -> None:
        self.folder, self.view = folder, StudyView(folder)
        self.first = options.node == 0
        self.started, self.looked = time.time(), -LOOK_S

    def look(self, done: set[str]) -> None:
        """Called again and again with the ids of the steps that are done."""
        if time.monotonic() - self.looked < LOOK_S:
            return
        self.looked = time.monotonic()
        if self.first:
            self.view.tick(len(done))
        if troubles_here(self.folder, self.started) >= BAD_NODE:
            raise BigticketsError(f"{BAD_NODE} failures of this machine: the rest is for others")

    def close(self) -> None:
        """Leave nothing running."""
        self.view.close()


def troubles_here(folder: RunFolder, since: float) -> int:
    """Attempts by processes of this machine, begun since then, that failed because of it."""
    return sum(
        claim.failure == "infra" and claim.host == socket.gethostname() and claim.started >= since
        for attempts in read_claims(folder.claims).values()
        for claim in attempts
    )


def _prefetch(options: argparse.Namespace) -> None:
    folder = open_run(options.run)
    prefetch(folder.study_yaml, folder.root)


def _finish(options: argparse.Namespace) -> None:
    """Submit what is left, if anything is and it makes sense; then tidy up, and the report."""
    folder = open_run(options.run)
    try:
        _go_on(folder, options.uid)
    except BigticketsError as error:
        print(f"could not submit what is left: {error}", flush=True)
    state = read_state(folder)
    sweep(folder, state)
    if any(step.step == "trial" for step in state.of("done")):
        report(folder.root)
    print(", ".join(f"{count} {name}" for name, count in state.counts.items() if count))


def _go_on(folder: RunFolder, uid: str) -> None:
    """Another round of jobs for steps that the ended ones left."""
    done = len(done_ids(folder))
    if not goes_on(folder):
        print("cancelled by the user: nothing more is submitted")
        return
    if journal.rounds_without_progress(folder, done) >= MOST_ROUNDS:
        print(f"{MOST_ROUNDS} rounds of jobs in a row got nowhere: nothing more is submitted")
        return
    with alone(folder) as mine:
        if mine:
            study = read_study(folder.study_yaml)
            for entry in send(look(folder, folder.slurm / "cluster.yaml", study, without=uid)):
                print(f"submitted {entry.name} as job {entry.job_id}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
