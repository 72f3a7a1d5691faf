"""A study on a real SLURM cluster while everything goes wrong, again and again.

    python benchmarks/chaos_slurm.py [--seeds 10] [--out FILE]

Per seed a cluster of four nodes (`tests/slurm/cluster.py`) runs a study of 24 trials, half of them
over two nodes with ZeRO. Meanwhile, at random times and in random order: a rank is killed, a slurmd
is killed, a node is killed, a job is preempted, an element is cancelled, a time limit is hit, a
node is cut off and healed when its job lives elsewhere, slurmctld is killed, a job is queued again.
The study must end by itself with the records of the local executor.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "slurm"))
from chaos import Chaos, finished_how_often, science, submit, write_chaos_study
from cluster import Cluster

from bigtickets.study.folder import RunFolder
from bigtickets.study.state import read_state


def main() -> int:
    """All seeds; 0 if each kept every promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--folder", type=Path, help="where to work, and to find the local run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines, kept = [], 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        root = options.folder or Path(name)
        expected = local_records(root)
        for seed in range(options.first, options.first + options.seeds):
            new, good = one_seed(root, seed, expected)
            lines += new
            kept += good
            summary = f"{kept} of {seed - options.first + 1} seeds kept every promise"
            if options.out:
                options.out.write_text("\n".join([*lines, summary]) + "\n")
    print(summary)
    return 0 if kept == options.seeds else 1


def local_records(root: Path) -> dict[str, dict]:
    """What the local executor makes of the study."""
    root.mkdir(exist_ok=True)
    write_chaos_study(root)
    command = [sys.executable, "-m", "bigtickets", "run", "study.yaml", "--out", "local"]
    subprocess.run([*command, "-j", "1"], cwd=root, check=True, stdout=subprocess.DEVNULL)
    return science(root / "local")


def one_seed(root: Path, seed: int, expected: dict[str, dict]) -> tuple[list[str], bool]:
    """What happened, and whether the study ended as it should."""
    run = root / "run"
    shutil.rmtree(run, ignore_errors=True)
    with Cluster() as cluster:
        chaos = Chaos(cluster, run, seed)
        chaos.say(f"seed {seed}")
        submit(cluster, root)
        cluster.wait_until_saved(int(cluster.run("squeue", "-h", "-o", "%A").split()[0]))
        chaos.happen(600)
        submissions = 1
        while True:
            cluster.wait_until_over(1200)
            state = read_state(RunFolder(run))
            if state.counts["done"] == len(state.steps) or submissions == 4:
                break
            submissions += 1
            chaos.say("nothing runs and the study is not over: submitted again by hand")
            submit(cluster, root)
    good = judge(chaos, run, expected, submissions)
    return chaos.lines, good


def judge(chaos: Chaos, run: Path, expected: dict[str, dict], submissions: int) -> bool:
    """Print and return whether every promise was kept."""
    found, how_often = science(run), finished_how_often(run)
    lost = sorted(set(expected) - set(found))
    differ = [i for i in found if found[i] != expected.get(i)]
    twice = [i for i, count in how_often.items() if count > 1]
    chaos.say(
        f"{len(found)} of {len(expected)} trials, {len(lost)} lost, {len(differ)} that differ "
        f"from the local executor's, {len(twice)} run to the end twice, "
        f"{submissions} submissions by hand"
    )
    return not (lost or differ or twice)


if __name__ == "__main__":
    sys.exit(main())
