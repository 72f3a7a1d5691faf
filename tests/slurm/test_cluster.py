"""The test cluster itself: what other tests here rely on."""

import os
from pathlib import Path

import pytest
from cluster import Cluster


def test_an_array_runs_over_all_nodes(cluster: Cluster) -> None:
    script = 'echo "$SLURM_ARRAY_TASK_ID $(hostname) $CUDA_VISIBLE_DEVICES"; sleep 1'
    job = cluster.submit(script, "--array=0-7", "--gres=gpu:2", "--cpus-per-task=4")
    cluster.wait_until_over(60)
    assert set(cluster.job_states(job).values()) == {"COMPLETED"}
    lines = [p.read_text().split() for p in (cluster.folder / "log").glob(f"job-{job}_*.txt")]
    assert sorted(int(index) for index, _, _ in lines) == list(range(8))
    assert {host for _, host, _ in lines} == set(cluster.shape.names)
    assert {gpus for _, _, gpus in lines} == {"0,1", "2,3"}


def test_jobs_go_on_through_a_crash_of_the_controller(cluster: Cluster) -> None:
    wait = f"while [ ! -e {cluster.folder}/go ]; do sleep 0.2; done"
    job = cluster.submit(wait, "--array=0-5%2")
    states = lambda: sorted(cluster.job_states(job).values())  # noqa: E731
    before = ["PENDING"] * 4 + ["RUNNING"] * 2
    cluster.wait_for(lambda: states() == before, 30, "running jobs")
    cluster.wait_until_saved(job)
    cluster.crash_controller()
    cluster.start_controller()
    assert states() == before
    (cluster.folder / "go").touch()
    cluster.wait_until_over(90)
    assert states() == ["COMPLETED"] * 6


def test_nobody_waits_for_a_job_that_the_controller_started_twice(cluster: Cluster) -> None:
    """Saved as waiting, then started, then forgotten: its node is drained and the job held."""
    over = cluster.folder / "twice"
    job = cluster.submit(f"while [ ! -e {over} ]; do sleep 0.2; done", "--hold")
    cluster.wait_until_saved(job)
    saved = (cluster.folder / "state" / "job_state").read_bytes()
    cluster.run("scontrol", "release", str(job))
    cluster.wait_for(lambda: "RUNNING" in cluster.job_states(job).values(), 30, "running job")
    cluster.crash_controller()
    (cluster.folder / "state" / "job_state").write_bytes(saved)
    cluster.start_controller()
    cluster.run("scontrol", "release", str(job))
    over.touch()
    cluster.wait_until_over(90)
    assert cluster.job_states(job)[str(job)] == "COMPLETED"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can cut a node off")
def test_lost_nodes_are_noticed_and_their_jobs_run_elsewhere(cluster: Cluster) -> None:
    """One node dies, another is cut off: there the first life of the job goes on meanwhile."""
    script = f"""
    while [ ! -e {cluster.folder}/over ]; do
        echo "${{SLURM_RESTART_COUNT:-0}} $(hostname)" >> {cluster.folder}/beats-$SLURM_JOB_ID
        sleep 0.2
    done"""
    jobs = [cluster.submit(script, "--requeue", "--exclusive") for _ in range(2)]
    beats = [cluster.folder / f"beats-{job}" for job in jobs]
    cluster.wait_for(lambda: all(path.exists() for path in beats), 30, "running jobs")
    dead, cut = (path.read_text().split()[1] for path in beats)
    cluster.kill_node(dead)
    cluster.cut_off(cut)
    cluster.wait_for(lambda: all("\n1 " in path.read_text() for path in beats), 90, "second lives")
    assert "0" not in _lives_after_the_second_began(beats[0])
    cluster.wait_for(lambda: "0" in _lives_after_the_second_began(beats[1]), 10, "overlap")
    cluster.heal(cut)
    cluster.start_node(dead)
    healed = lambda: all("idle" in cluster.node_states()[name] for name in (dead, cut))  # noqa: E731
    cluster.wait_for(healed, 90, "healed nodes")
    (cluster.folder / "over").touch()
    cluster.wait_until_over(60)
    assert [cluster.job_states(job)[str(job)] for job in jobs] == ["COMPLETED"] * 2


def _lives_after_the_second_began(beats: Path) -> list[str]:
    lives = [line.split()[0] for line in beats.read_text().splitlines()]
    return lives[lives.index("1") :]
