"""One round of `benchmarks/chaos_slurm.py`, with some of its disasters."""

from pathlib import Path

import pytest
from chaos import Chaos, finished_how_often, submit
from cluster import Cluster
from small_study import records, write_study

from bigtickets.study.folder import RunFolder
from bigtickets.study.state import read_state

pytestmark = pytest.mark.slurm


def test_nothing_is_lost_or_done_twice_when_jobs_are_disturbed(
    tmp_path: Path, cluster: Cluster
) -> None:
    training = {"epochs": 8, "learning_rate": 3e-3, "batch_size": 8, "max_length": 24}
    execution = {"threads": 1, "checkpoint_every_s": 1}
    write_study(tmp_path, training=training, execution=execution)
    (tmp_path / "cluster.yaml").write_text(
        "time: '0:10:00'\npartition: low\ncpus: 1\nmemory_gb: 1\nconcurrency: 2\n"
    )
    chaos = Chaos(cluster, tmp_path / "run", seed=0)
    chaos.disasters = [chaos.kill_worker, chaos.preempt, chaos.requeue]
    submit(cluster, tmp_path)
    chaos.happen(200)
    cluster.wait_until_over(400)
    state = read_state(RunFolder(tmp_path / "run"))
    assert state.counts["done"] == len(state.steps), "\n".join(chaos.lines)
    assert len(records(tmp_path / "run")) == 6
    assert max(finished_how_often(tmp_path / "run").values()) == 1, "\n".join(chaos.lines)
    assert not any("did not happen" in line for line in chaos.lines), "\n".join(chaos.lines)
