"""Studies on a real cluster: the same results as without one, whatever SLURM does to the jobs."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from chaos import science
from cluster import Cluster
from small_study import HANG_S, records, write_study

from bigtickets.study.folder import RunFolder
from bigtickets.study.lives import read_lives

pytestmark = pytest.mark.slurm
LIMITS = {"time": "0:10:00", "cpus": 1, "memory_gb": 1, "save_seconds": 30}


def bigtickets(cluster: Cluster, cwd: Path, *words: object, code: int = 0) -> str:
    """Run a command as on a login node; its output."""
    result = subprocess.run(
        [sys.executable, "-m", "bigtickets", *map(str, words)],
        cwd=cwd,
        env={**cluster.environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def write_cluster(folder: Path, **keys: Any) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({**LIMITS, **keys}))
    return path


def logs(run: Path) -> str:
    return "\n".join(f"--- {p.name}\n{p.read_text()[-2000:]}" for p in run.glob("logs/*"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Path:
    """A study that SLURM has finished; its folder's name is hostile."""
    root = tmp_path_factory.mktemp("it's 100%j $HOME; study")
    write_study(root)
    # One slot of two GPUs and two trials per node.
    write_cluster(root, gpus_per_node=2, whole_nodes=True, prefetch="job", concurrency=2)
    output = bigtickets(cluster, root, "submit", "study.yaml", "--cluster", "cluster.yaml")
    assert "trials-1x" in output
    twice = bigtickets(cluster, root, "submit", "study.yaml", "--cluster", "cluster.yaml")
    assert "nothing to submit: its jobs are at work" in twice
    cluster.wait_until_over(400)
    return root


def test_a_study_ends_with_the_records_of_the_local_executor(cluster: Cluster, root: Path) -> None:
    run = root / "runs" / "small"
    bigtickets(cluster, root, "run", "study.yaml", "--out", "here")
    assert len(records(run)) == 6, logs(run)
    assert science(root / "here") == science(run)
    assert (run / "report" / "index.html").is_file()
    assert list((run / "tb" / "_study").glob("*tfevents*"))
    assert not list((run / "claims").glob("*"))
    done = bigtickets(cluster, root, "submit", "study.yaml", "--cluster", "cluster.yaml")
    assert "nothing is left to do" in done


def test_an_extended_study_runs_only_what_is_new(cluster: Cluster, root: Path) -> None:
    run = root / "runs" / "small"
    before = records(run)
    write_study(root, seeds=[0, 1, 2], tickets={"ratios": [0, 0.5], "kinds": ["winning"]})
    bigtickets(cluster, root, "submit", "study.yaml", "--cluster", "cluster.yaml")
    cluster.wait_until_over(300)
    after = records(run)
    assert len(after) == len(before) + 2, logs(run)
    assert {i: after[i] for i in before} == before


def test_two_elements_on_one_node_never_meet(cluster: Cluster, tmp_path: Path) -> None:
    """Each with a group of two ranks at the same time: with one fixed port they would be one."""
    path = write_study(
        tmp_path,
        training={"epochs": 8, "learning_rate": 3e-3, "batch_size": 8, "max_length": 24},
        seeds=[0, 1],
        execution={"threads": 1, "processes_per_trial": 2, "zero": 2},
    )
    write_cluster(tmp_path, gpus_per_node=2, concurrency=2, exclude="node[2-4]")
    bigtickets(cluster, tmp_path, "submit", path, "--cluster", "cluster.yaml")
    cluster.wait_until_over(400)
    run = tmp_path / "runs" / "small"
    lives = [life for life in read_lives(RunFolder(run)) if life.processes == 2]
    assert {life.host for life in lives} == {"node1"}, logs(run)
    assert any(
        one.started < other.started < one.started + one.alive_s
        for one in lives
        for other in lives
        if one.steps and other.steps
    ), lives
    bigtickets(cluster, tmp_path, "run", path, "--out", "here")
    assert len(records(run)) == 6, logs(run)
    assert science(tmp_path / "here") == science(run)


def test_time_limits_and_cancel(cluster: Cluster, tmp_path: Path) -> None:
    """A trial longer than a job's time goes on in the next life; cancelled jobs stay cancelled."""
    training = {"epochs": 400, "learning_rate": 1e-3, "batch_size": 8, "max_length": 24}
    path = write_study(
        tmp_path,
        training=training,
        tickets={"ratios": [0]},
        seeds=[0],
        execution={"threads": 1, "checkpoint_every_s": 5},
    )
    write_cluster(tmp_path, time="0:01:15", save_seconds=30)
    bigtickets(cluster, tmp_path, "submit", path, "--cluster", "cluster.yaml")
    run = tmp_path / "runs" / "small"
    job = next(e["job_id"] for e in journal(run) if e["stage"] == "trials")
    log = run / "logs" / f"trials-1x-{job}_0.out"
    again = lambda: log.exists() and "life 1," in log.read_text()  # noqa: E731
    cluster.wait_for(again, 200, "second life")
    assert "exit code 75" in log.read_text()
    claims = [json.loads(p.read_text()) for p in run.glob("claims/[!.]*")]
    assert [claim["state"] for claim in claims][:1] == ["released"]
    assert list(run.glob("work/*/attempt-*/checkpoints/step-*"))
    time.sleep(5)  # in the middle of its second life
    refused = bigtickets(cluster, tmp_path, "cancel", run, code=2)
    assert "give --yes" in refused
    assert f"job {job}  trials-1x" in bigtickets(cluster, tmp_path, "cancel", run, "--yes")
    cluster.wait_until_over(60)
    time.sleep(8)  # a requeue would have shown by now
    assert not cluster.run("squeue", "-h").strip()
    assert "life 2," not in log.read_text()
    assert {e["state"] for e in journal(run)} == {"cancelled"}


def journal(run: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in run.glob("slurm/jobs/*.json")]


def test_what_sbatch_refuses_is_explained(cluster: Cluster, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    for keys, words in (
        ({"partition": "nowhere"}, "keys `partition` and"),
        ({"gpus_per_node": 9, "gres": "gpu", "whole_nodes": True}, "`gpus_per_node`"),
    ):
        write_cluster(tmp_path, **keys)
        output = bigtickets(cluster, tmp_path, "submit", path, "--cluster", "cluster.yaml", code=2)
        assert "sbatch refused it" in output
        assert words in output
        assert "next: bigtickets submit" in output
    assert not cluster.run("squeue", "-h").strip()
