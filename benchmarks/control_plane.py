"""The control plane at a size that no test reaches: 100,000 trials, 64 workers, files only.

    python benchmarks/control_plane.py [--workers 64] [--seeds 10] [--folder DIR] [--out FILE]

Plans a study, lets worker processes claim, run and commit every step of it, and asks `status` and
the report's table for the result. Only the training is left out: a stage writes the record that it
would have written, at once, through the package's own claims, attempts and commits. Workers are
forked, so that memory is that of one study and not of 64 interpreters.

Every execution of a step is noted in a file of its worker, so that the check at the end does not
rest on what it checks: each step was run to its end exactly once, by one worker.
"""

import argparse
import gc
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from bigtickets.analysis.table import read_table, write_tables
from bigtickets.files import write_json
from bigtickets.running import worker
from bigtickets.running.context import Context, commit
from bigtickets.running.queue import Queue
from bigtickets.running.signals import Stop
from bigtickets.running.sizes.planning import plan
from bigtickets.running.watching.status import status
from bigtickets.study.claims import Claim, Claims, new_owner
from bigtickets.study.folder import RunFolder
from bigtickets.study.reader import read_study
from bigtickets.study.state import read_manifest, write_run
from bigtickets.study.steps import Step, before_trials
from bigtickets.training.ranks import Ranks

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from small_study import study, write_data, write_model

KINDS = ["winning", "random", "random_layerwise", "losing", "reinit"]
MODELS, TASKS = 8, 5
LOOK_EVERY_S = 10  # at the processes' memory, which costs them time


def main() -> None:
    """Measure, check and print; also into --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--levels", type=int, default=50, help="ratios; 50 make 100,400 trials")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary one)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="control-", dir=options.folder))
    lines = []
    try:
        for line in measure(root, options):
            print(line, flush=True)
            lines.append(line)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def measure(root: Path, options: argparse.Namespace) -> Iterator[str]:
    """Every command of the control plane, one after another; what was measured, as lines."""
    path = write_large_study(root, options.seeds, options.levels)
    folder = RunFolder(root / "run")
    yield header(options.workers)
    yield timed("plan, nothing done", lambda: quietly(plan, path, folder.root, True))
    yield timed("write the run folder", lambda: write_run(read_study(path), folder))
    steps = read_manifest(folder)
    trials = sum(step.step == "trial" for step in steps)
    yield f"{len(steps)} steps, {trials} of them trials"
    yield timed("status, nothing done", lambda: quietly(status, folder.root, True))
    yield from run_workers(root, folder, options.workers, steps)
    yield verdict(root, folder, steps)
    yield timed("status, all done", lambda: quietly(status, folder.root, True))
    yield timed("plan, all done", lambda: quietly(plan, path, folder.root, True))
    yield timed("the report's table", lambda: make_table(folder, trials))


def write_large_study(root: Path, seeds: int, levels: int) -> Path:
    """MODELS x TASKS x (1 + levels x kinds) x seeds trials; one model under several recipes."""
    write_model(root / "model")
    base = study(root)
    base["models"] = [
        {"name": f"m{i}", "path": str(root / "model"), "training": {"epochs": i + 1}}
        for i in range(MODELS)
    ]
    base["tasks"] = [task(root, base["tasks"][0], i) for i in range(TASKS)]
    ratios = [round((i + 1) / (levels + 2), 4) for i in range(levels)]
    base["tickets"] = {"ratios": [0, *ratios], "kinds": KINDS}
    base["seeds"] = list(range(seeds))
    path = root / "study.yaml"
    path.write_text(yaml.safe_dump(base))
    return path


def task(root: Path, like: dict[str, Any], number: int) -> dict[str, Any]:
    """A task with files of its own."""
    data = write_data(root / f"data{number}", rows=96 + number)
    files = {name: str(data / f"{name}.tsv") for name in ("train", "validation")}
    return {**like, "name": f"t{number}", **files}


def run_workers(root: Path, folder: RunFolder, count: int, steps: list[Step]) -> Iterator[str]:
    """Let `count` processes work until nothing is left; what it took, as lines.

    On the way, when only trials are left, the same number of processes claims most of them and
    does nothing else; then those claims are taken away.
    """
    worker.STAGES.update(dict.fromkeys(worker.STAGES, run_stub))
    context = worker.make_context(folder, Ranks(0, 1, torch.device("cpu")), Stop())
    gc.freeze()
    (root / "executed").mkdir()
    needed = before_trials(steps)
    early = [step.id for step in steps if step.id in needed]
    trials = [step.id for step in steps if step.id not in needed]
    seconds, _ = side_by_side(count, lambda i: one_worker(context, root, i, early))
    yield f"{'what the trials wait for (stubs)':<36} {seconds:8.1f} s for {len(early)} steps"
    yield from claim_most(root, context, count, trials)
    seconds, memory = side_by_side(count, lambda i: one_worker(context, root, i, trials))
    notes = [json.loads(p.read_text()) for p in (root / "executed").glob("*.json")]
    yield f"{'claim, run (stub), commit every trial':<36} {seconds:8.1f} s"
    yield f"  {len(trials) / seconds:.0f} trials/s over {count} processes"
    yield f"  {1e3 * sum(note['cpu_s'] for note in notes) / len(trials):.2f} ms of CPU per trial"
    yield f"  {memory}"


def claim_most(root: Path, context: Context, count: int, trials: list[str]) -> Iterator[str]:
    """`count` processes claim nine of ten trials as a worker does, as fast as they can."""
    share = int(0.9 * len(trials)) // count
    (root / "claimed").mkdir()
    # Who ends early is dead, and what it has claimed may rightly be claimed again.
    ended = multiprocessing.get_context("fork").Barrier(count)
    seconds, memory = side_by_side(
        count, lambda i: one_claimer(context, root, i, trials, share, ended)
    )
    claimed = [i for p in (root / "claimed").iterdir() for i in p.read_text().split()]
    assert len(claimed) == share * count, "a process claimed too few"
    assert len(claimed) == len(set(claimed)), "a trial was claimed twice"
    yield f"{'claim nine of ten trials':<36} {seconds:8.1f} s, start of the processes included"
    yield f"  {len(claimed) / seconds:.0f} claims/s over {count} processes, none claimed twice"
    yield f"  {memory}"
    for path in context.folder.claims.iterdir():
        path.unlink()


def side_by_side(count: int, work: Callable[[int], None]) -> tuple[float, str]:
    """Seconds that forked processes take for it, and a line on their memory at its most."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=work, args=(i,)) for i in range(count)]
    sizes, over = [[0]], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_EVERY_S):
            sizes.append(proportional_memory() or [0])

    watcher = threading.Thread(target=look)
    started = time.monotonic()
    for process in processes:
        process.start()
    watcher.start()
    for process in processes:
        process.join()
    seconds = time.monotonic() - started
    over.set()
    watcher.join()
    assert all(process.exitcode == 0 for process in processes), "a process died"
    largest, most = max(map(max, sizes)) / 2**30, max(map(sum, sizes)) / 2**30
    memory = f"{largest:.2f} GiB for the largest process, {most:.2f} GiB for all"
    return seconds, memory


def one_worker(context: Context, root: Path, number: int, chosen: list[str]) -> None:
    """What `bigtickets.running.worker` does."""
    cpu = time.process_time()
    mine = own(context, number)
    Log.file = (root / "executed" / f"{number}.txt").open("a")
    with (root / "output.txt").open("a") as output, redirect_stdout(output):
        worker.work(mine, chosen)
    note = {"cpu_s": time.process_time() - cpu}
    (root / "executed" / f"{number}.json").write_text(json.dumps(note))


def one_claimer(
    context: Context, root: Path, number: int, trials: list[str], share: int, ended: Barrier
) -> None:
    """Claims so many trials, and waits for the others."""
    queue = Queue(own(context, number), trials)
    with (root / "claimed" / str(number)).open("w") as notes:
        for _ in range(share):
            claim = queue.next(lambda step: True)
            assert isinstance(claim, Claim)
            notes.write(claim.step_id + "\n")
    ended.wait()


def own(context: Context, number: int) -> Context:
    """The context of one process: an owner, a log and a chance of its own."""
    random.seed(number)
    torch.set_num_threads(1)
    return replace(context, claims=Claims(context.folder.claims, new_owner(), f"{number}.log"))


class Log:
    """This worker's own notes: what it ran."""

    file: Any = None


def run_stub(context: Context, step: Step, claim: Claim) -> bool:
    """In place of every stage: the record and nothing else."""
    Log.file.write(f"{step.id} {claim.attempt}\n")
    Log.file.flush()
    if step.step in ("data", "ticket"):
        write_json(context.folder.result(step.step, step.id), {"id": step.id})
        return True
    attempt = context.folder.attempt(step.id, claim.attempt)
    attempt.mkdir(parents=True)
    write_json(attempt / "record.json", record(step, claim))
    home = context.folder.trial if step.step == "trial" else context.folder.score
    committed = commit(context, claim, attempt, home(step.id))
    shutil.rmtree(context.folder.work(step.id), ignore_errors=True)
    return committed


def record(step: Step, claim: Claim) -> dict[str, Any]:
    """A trial's record in its real layout, with made-up results."""
    score = random.gauss(0.8 - step.ratio**4, 0.01)
    counts = {"parameters": 1_000_000, "dense_parameters": 1_000_000, "train_examples": 1000}
    return {
        "schema": 1,
        "step": step.step,
        "id": step.id,
        "label": step.label,
        "attempt": claim.attempt,
        "metrics": {"score": score, "accuracy": score, "loss": 1 - score},
        "headline": "accuracy",
        "majority_score": 0.5,
        "degenerate": None,
        "counts": {**counts, "steps": 100, "tokens": 40_000, "eval_examples": 500},
        "fractions": {"encoder": step.ratio, "model": step.ratio / 2, "flops": step.ratio},
        "ticket": {"id": step.ticket, "hash": "0" * 16} if step.ticket else None,
        "timings": {"load_s": 1.0, "train_s": 10.0, "eval_s": 1.0, "total_s": 12.0},
        "throughput": {"examples_per_s": 100.0, "model_flops_per_s": 1e9, "mfu": None},
        "host": claim.host,
        "log": claim.log,
        "finished": "2026-01-01T00:00:00Z",
    }


def verdict(root: Path, folder: RunFolder, steps: list[Step]) -> str:
    """Every step exactly once, and nothing left over; AssertionError otherwise."""
    executed: Counter[str] = Counter()
    attempts: Counter[str] = Counter()
    for path in (root / "executed").glob("*.txt"):
        for line in path.read_text().splitlines():
            step_id, attempt = line.split()
            executed[step_id] += 1
            attempts[attempt] += 1
    assert set(executed) == {step.id for step in steps}, "a step was never run"
    assert set(executed.values()) == {1}, "a step was run twice"
    assert set(attempts) == {"1"}, "an attempt was given up"
    assert all(folder.result(step.step, step.id).exists() for step in steps)
    assert not list(folder.claims.iterdir()), "a claim was left behind"
    return f"{len(executed)} steps run, each exactly once; no claim left"


def make_table(folder: RunFolder, trials: int) -> None:
    """What `report` begins with."""
    table = read_table(folder)
    assert len(table) == trials
    write_tables(table, folder.report / "table.csv", folder.report / "table.parquet")


def timed(what: str, action: Callable[[], Any]) -> str:
    """Run it in a fresh process, as a command would; seconds, CPU seconds and peak memory."""
    fork = multiprocessing.get_context("fork")
    queue = fork.SimpleQueue()

    def work() -> None:
        started, cpu = time.monotonic(), time.process_time()
        action()
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        queue.put((time.monotonic() - started, time.process_time() - cpu, usage / 2**20))

    process = fork.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0, f"{what} failed"
    seconds, cpu, memory = queue.get()
    return f"{what:<36} {seconds:8.1f} s {cpu:8.1f} s of CPU {memory:8.2f} GiB at most"


def quietly(action: Callable[..., None], *arguments: Any) -> None:
    """A command without its output."""
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        action(*arguments)


def proportional_memory() -> list[int]:
    """Bytes of each of this process's children, shared pages divided among them."""
    sizes = []
    for child in psutil.Process().children():
        try:
            sizes.append(child.memory_full_info().pss)
        except psutil.Error:
            continue
    return sizes


def header(workers: int) -> str:
    """What it ran on."""
    cores = os.cpu_count()
    load = os.getloadavg()[0]
    return f"{workers} workers, {cores} cores (load before: {load:.1f}), Python {sys.version[:6]}"


if __name__ == "__main__":
    main()
