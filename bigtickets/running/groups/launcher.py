"""One machine's part of a group of ranks, on one machine or many: `launch/node.py`.

    node.py [WHERE] worker RUN              a worker of a run folder
    node.py [WHERE] score STUDY.yaml ...    a single step (score, prune, train)

Start it once on every machine. WHERE is nothing on one machine or under `srun`; a hostfile; or the
number of machines, which one this is, and the address of the first. See docs/many_nodes.md.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bigtickets.errors import BigticketsError, Interrupted
from bigtickets.running.commands import guarded
from bigtickets.running.groups.exit_codes import CODES, codes_left
from bigtickets.running.groups.launching import (
    OFFLINE,
    STORE_S,
    ask_to_stop,
    group_environment,
    node_command,
    ranks_of,
    start,
    threads_per_rank,
    visible_devices,
)
from bigtickets.running.groups.meeting import meeting
from bigtickets.running.groups.nodes import Asked, Node, find_node
from bigtickets.running.signals import Stop

WORKER_RESTARTS = 10
"""A failed step costs a group its life, so that no rank waits for one that has gone."""
POLL_S = 0.2
ASK_AGAIN_S = 1.0
PROGRAMS = {
    "worker": ("-m", "bigtickets.running.worker"),
    **{name: ("-m", "bigtickets", name) for name in ("score", "prune", "train")},
}


def main(words: list[str] | None = None) -> int:
    """Start this machine's ranks and wait for them; their exit code, as that of any command."""
    options = _parser().parse_args(words)
    codes: list[int] = []
    return guarded(lambda: codes.append(launch(options))) or codes[0]


def launch(options: argparse.Namespace) -> int:
    """Find the machine's part, meet the other machines, run the ranks."""
    asked = {name: getattr(options, name) for name in Asked.__dataclass_fields__}
    node = find_node(Asked(**asked), max(1, len(visible_devices())))
    restarts = options.max_restarts
    if restarts is None:
        restarts = WORKER_RESTARTS if options.program == "worker" else 0
    program = [*PROGRAMS[options.program], *options.words]
    stop = Stop()
    stop.install()
    with (
        tempfile.TemporaryDirectory(prefix="bigtickets-") as codes,
        meeting(node, options.wait, stop.raise_if_asked) as port,
    ):
        command = node_command(node, port, program, restarts, options.wait)
        own = {CODES: codes, **(OFFLINE if options.program == "worker" else {})}
        torchrun = start(command, _environment(node, own))
        return supervise(torchrun, node, Path(codes), stop, options.wait)


def supervise(
    torchrun: subprocess.Popen, node: Node, codes: Path, stop: Stop, wait_s: float
) -> int:
    """Wait for the ranks, handing on to them that somebody wants them to stop."""
    asked_at, alive_at = -ASK_AGAIN_S, time.monotonic()
    while (ended := torchrun.poll()) is None:
        now = time.monotonic()
        if Interrupted.exit_code in codes_left(codes):
            stop.ask()  # another node was asked: the group is not to start anew
        if stop.asked() and now - asked_at > ASK_AGAIN_S:
            # Again and again: a rank that is still starting does not hear it.
            asked_at = now
            if not ask_to_stop(torchrun) and len(codes_left(codes)) < node.processes:
                torchrun.send_signal(signal.SIGTERM)  # still waiting for other nodes
        if ranks_of(torchrun):
            alive_at = now
        elif now - alive_at > wait_s + STORE_S:
            torchrun.kill()  # it waits for a store that does not answer, some questions for ever
        time.sleep(POLL_S)
    return _exit_code(ended, codes_left(codes), node, stop)


def _exit_code(ended: int, left: list[int], node: Node, stop: Stop) -> int:
    """The ranks' own code where they ended in order; else that of a death."""
    died = BigticketsError.exit_code
    told = [code for code in left if code not in (0, died)]
    if told:
        return told[0]
    if died not in left and (ended == 0 or len(left) == node.processes):
        return 0
    if stop.asked():
        return Interrupted.exit_code
    raise BigticketsError("a rank died, here or on another node; what is done is kept")


def _environment(node: Node, own: dict[str, str]) -> dict[str, str]:
    threads = None if "OMP_NUM_THREADS" in os.environ else threads_per_rank(node.processes)
    return {**os.environ, **group_environment(threads), **own}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="node.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--nnodes", type=int, help="number of machines")
    add("--node-rank", type=int, help="which of them this is, from 0")
    add("--master-addr", help="name or address of machine 0")
    add("--master-port", type=int, help="where machine 0 is met (default: follows from the job)")
    add("--nproc-per-node", type=int, help="ranks on this machine (default: one per GPU)")
    add("--hostfile", type=Path, help="all that, from lines `HOST slots=N`")
    add("--job", help="name of the group, the same on all machines (default: SLURM's ids)")
    add("--max-restarts", type=int, help="new starts after a rank's death (10; steps: 0)")
    add("--wait", type=float, default=600.0, help="seconds to wait for the other machines (600)")
    add("program", choices=PROGRAMS)
    add("words", nargs=argparse.REMAINDER, help="words of the program")
    return parser


if __name__ == "__main__":
    sys.exit(main())
