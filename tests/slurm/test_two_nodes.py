"""Trials over several nodes beside trials on one, and what the local executor makes of them."""

from collections import Counter
from pathlib import Path

import pytest
from chaos import science, write_chaos_study
from cluster import Cluster
from small_study import records
from test_submit import bigtickets, logs, write_cluster

pytestmark = pytest.mark.slurm


def test_24_trials_over_four_nodes_half_of_them_over_two_with_zero(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Slots side by side, each group with a port of its own: what the local executor records."""
    path = write_chaos_study(tmp_path)
    write_cluster(tmp_path, processes_per_node=1, extra={"partition-of-nobody": 1})
    refused = bigtickets(cluster, tmp_path, "submit", path, "--cluster", "cluster.yaml", code=2)
    assert "key `extra`" in refused
    write_cluster(tmp_path, gpus_per_node=1, concurrency=2)
    bigtickets(cluster, tmp_path, "submit", path, "--cluster", "cluster.yaml")
    cluster.wait_until_over(400)
    bigtickets(cluster, tmp_path, "run", path, "--out", "here")
    run = tmp_path / "runs" / "small"
    found = records(run)
    assert len(found) == 24, logs(run)
    assert science(tmp_path / "here") == science(run)
    sizes = Counter(record["execution"]["world_size"] for record in found.values())
    assert sizes == {1: 12, 2: 12}
    assert len({record["host"] for record in found.values()}) > 1
