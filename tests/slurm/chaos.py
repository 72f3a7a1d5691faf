"""What goes wrong on a cluster, done to a real one at random while a study runs on it."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from cluster import Cluster
from small_study import records, write_study

from bigtickets.running.watching.logs import MARK

PARTITION = "low"
"""Where the study runs: jobs of `high` push its jobs aside."""
WORKER = "bigtickets.running.worker"


def write_chaos_study(root: Path) -> Path:
    """24 trials, half of them over two nodes with ZeRO; and the cluster file for them."""
    model = str(root / "model")
    single = {"checkpoint_every_s": 1, "threads": 1}
    pair = {**single, "processes_per_trial": 2, "zero": 2}
    path = write_study(
        root,
        models=[
            {"name": "one", "path": model, "execution": single},
            {"name": "two", "path": model, "execution": pair, "training": {"epochs": 2}},
        ],
        seeds=[0, 1, 2, 3],
        training={"epochs": 8, "learning_rate": 3e-3, "batch_size": 8, "max_length": 24},
    )
    (root / "cluster.yaml").write_text(
        f"time: '0:10:00'\npartition: {PARTITION}\ngpus_per_node: 1\ncpus: 1\nmemory_gb: 1\n"
        "concurrency: 3\nsave_seconds: 20\n"
    )
    return path


class Chaos:
    """Disasters on a cluster on which a study runs, each with a line on what was done."""

    def __init__(self, cluster: Cluster, run: Path, seed: int) -> None:
        self.cluster, self.run, self.draw = cluster, run, random.Random(seed)
        self.started = time.monotonic()
        self.lines: list[str] = []
        self.disasters: list[Callable[[], str | None]] = [
            self.kill_worker,
            self.kill_slurmd,
            self.kill_node,
            self.preempt,
            self.cancel_element,
            self.hit_time_limit,
            self.cut_off,
            self.crash_controller,
            self.requeue,
        ]

    def say(self, line: str) -> None:
        """Keep a line, with the time."""
        self.lines.append(f"{time.monotonic() - self.started:6.1f} s  {line}")
        print(self.lines[-1], flush=True)

    def happen(self, until_s: float) -> None:
        """Let every disaster happen once, in random order, while there is work to disturb."""
        left = self.draw.sample(self.disasters, len(self.disasters))
        end = time.monotonic() + until_s
        while left and time.monotonic() < end and not self.over():
            time.sleep(self.draw.uniform(1, 6))
            for disaster in list(left):
                if done := disaster():
                    self.say(f"{disaster.__name__}: {done}")
                    left.remove(disaster)
                    break
        for disaster in left:
            self.say(f"{disaster.__name__}: did not happen, the study was over")

    def over(self) -> bool:
        """Whether no job of anybody waits or runs."""
        return not self.cluster.run("squeue", "-h", check=False).strip()

    # Each returns what it did, or None where there was nothing to do it to.

    def kill_worker(self) -> str | None:
        """A rank dies, as if the kernel had run out of memory."""
        ranks = [p for p in psutil.process_iter(["cmdline"]) if self._is_rank(p)]
        if not ranks:
            return None
        victim = self.draw.choice(ranks)
        victim.kill()
        return f"process {victim.pid}, one of {len(ranks)} ranks"

    def kill_slurmd(self) -> str | None:
        """A node's daemon dies and is started again; the node's jobs know nothing of it."""
        if not (node := self._busy_node()):
            return None
        self.cluster.kill_slurmd(node)
        time.sleep(self.draw.uniform(1, 5))
        self.cluster.start_slurmd(node)
        return node

    def kill_node(self) -> str | None:
        """A node loses its power, and comes back when SLURM has noticed."""
        if not (node := self._busy_node()):
            return None
        self.cluster.kill_node(node)
        self._wait(lambda: "down" in self.cluster.node_states().get(node, ""), 60)
        self.cluster.start_node(node)
        return node

    def preempt(self) -> str | None:
        """Somebody more important wants a node."""
        if not (node := self._busy_node()):
            return None
        # It gives up: after a crash SLURM may hold a part of an idle node for ever.
        ends = ("--time=1", "--deadline=now+3minutes")
        self.cluster.submit("sleep 5", "-p", "high", "-w", node, "--exclusive", *ends)
        return node

    def cancel_element(self) -> str | None:
        """One element of an array is cancelled, as by a user who mistyped."""
        return self._to_job("scancel", "{}")

    def hit_time_limit(self) -> str | None:
        """A job is older than it may be, without a warning before."""
        return self._to_job("scontrol", "update", "jobid={}", "timelimit=1")

    def requeue(self) -> str | None:
        """An administrator queues a job again."""
        return self._to_job("scontrol", "requeue", "{}")

    def cut_off(self) -> str | None:
        """A node works on alone until its job has begun another life elsewhere."""
        if not self.cluster.as_root or not (node := self._busy_node()):
            return None
        jobs = [job for job, where in self._running().items() if node in where]
        self.cluster.cut_off(node)

        def elsewhere() -> bool:
            now = self._running()
            return any(job in now and node not in now[job] for job in jobs)

        moved = self._wait(elsewhere, 60)
        beside = len([p for p in self._ranks_on(node) if p.is_running()])
        self.cluster.heal(node)
        return f"{node}; {'job began again elsewhere' if moved else 'no new life'} beside {beside}"

    def crash_controller(self) -> str | None:
        """slurmctld dies and is started again."""
        self.cluster.crash_controller()
        time.sleep(self.draw.uniform(0, 4))
        self.cluster.start_controller()
        return "slurmctld"

    # ------------------------------------------------------------ inside

    def _running(self) -> dict[str, list[str]]:
        """Nodes by element of the study's jobs that run."""
        text = self.cluster.run(
            "squeue", "-h", "-r", "-p", PARTITION, "-t", "R", "-o", "%i %N", check=False
        )
        found = {}
        for line in text.splitlines():
            job, nodes = line.split()
            found[job] = self.cluster.run("scontrol", "show", "hostnames", nodes).split()
        return found

    def _busy_node(self) -> str | None:
        nodes = sorted({node for nodes in self._running().values() for node in nodes})
        return self.draw.choice(nodes) if nodes else None

    def _to_job(self, *command: str) -> str | None:
        if not (jobs := sorted(self._running())):
            return None
        job = self.draw.choice(jobs)
        self.cluster.run(*(word.format(job) for word in command), check=False)
        return f"job {job}"

    def _is_rank(self, process: psutil.Process) -> bool:
        words = process.info["cmdline"] or []
        launched = "torch.distributed.run" in words
        return WORKER in words and str(self.run) in words and not launched

    def _ranks_on(self, node: str) -> list[psutil.Process]:
        inside = {p.pid for p in psutil.Process(self.cluster._init(node)).children(recursive=True)}
        ranks = (p for p in psutil.process_iter(["cmdline"]) if self._is_rank(p))
        return [p for p in ranks if p.pid in inside]

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.3)
        return False


def submit(cluster: Cluster, root: Path) -> str:
    """`bigtickets submit`, as typed on the login node; what it prints."""
    words = ("submit", "study.yaml", "--cluster", "cluster.yaml", "--out", "run")
    done = subprocess.run(
        [sys.executable, "-m", "bigtickets", *words],
        cwd=root,
        env={**cluster.environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def finished_how_often(run: Path) -> Counter[str]:
    """How often each step was run to its end, by the logs of all workers."""
    finished: Counter[str] = Counter()
    for path in run.glob("logs/*.log"):
        current = ""
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith(MARK):
                current = line.removeprefix(MARK).split()[0]
            elif line.startswith("done in "):
                finished[current] += 1
    return finished


def science(run: Path) -> dict[str, dict]:
    """The records of a run's trials without what a clock, a restart or a machine changes."""
    kept = ("id", "spec", "metrics", "degenerate", "counts", "fractions", "ticket")
    return {i: {key: r[key] for key in kept} for i, r in records(run).items()}
