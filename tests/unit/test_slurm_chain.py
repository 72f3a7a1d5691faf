"""Which jobs a study becomes, and how limits shape them."""

import pytest

from bigtickets.errors import InputError
from bigtickets.running.slurm.chain import Job, chain
from bigtickets.running.slurm.cluster import Cluster
from bigtickets.running.slurm.limits import Limits, max_array_size, submit_limits
from bigtickets.study.steps import Step

GPUS = Cluster(time="4:02:00", gpus_per_node=8, concurrency=16)
Wanted = list[tuple[Step, int, bool]]


def steps(trials: int, processes: int = 1, scores: int = 0, data: int = 0) -> Wanted:
    """So many steps of each stage, of one shape."""
    made: Wanted = []
    for stage, count in (("data", data), ("scores", scores), ("trial", trials)):
        for i in range(count):
            step = Step(f"{stage}{processes}-{i}", stage, (), "", "m", "t")  # type: ignore[arg-type]
            made.append((step, processes, stage != "trial"))
    return made


def names(jobs: list[Job]) -> list[tuple[str, int]]:
    return [(job.name, job.elements) for job in jobs]


def test_one_chain_per_shape_and_one_last_job() -> None:
    wanted = [*steps(100, 1, scores=4, data=2), *steps(10, 16, scores=2)]
    jobs = chain(wanted, {}, GPUS, Limits())
    assert names(jobs) == [
        ("scoring-1x", 4),
        ("trials-1x", 16),
        ("scoring-16x", 2),
        ("trials-16x", 10),
        ("finish", 1),
    ]
    assert [job.nodes for job in jobs] == [1, 1, 2, 2, 1]
    assert [job.gpus(GPUS) for job in jobs] == [1, 1, 16, 16, 0]


def test_nothing_left_is_no_job() -> None:
    assert chain([], {}, GPUS, Limits()) == []


def test_a_dense_study_needs_no_scoring_array() -> None:
    assert names(chain(steps(3), {}, GPUS, Limits())) == [("trials-1x", 3), ("finish", 1)]


def test_data_in_a_job_of_its_own() -> None:
    cluster = Cluster(time="4:00:00", prefetch="job")
    assert names(chain(steps(3, data=1), {}, cluster, Limits()))[0] == ("prefetch", 1)
    assert names(chain(steps(3), {}, cluster, Limits()))[0] == ("trials-1x", 3)


def test_long_work_gets_more_slots_than_run_at_once() -> None:
    # A slot works for four hours: 100 hours of work are 25 slots, of which 16 at once.
    jobs = chain(steps(1000), {1: 100.0}, GPUS, Limits())
    assert names(jobs)[0] == ("trials-1x", 25)


def test_whole_nodes_run_trials_side_by_side() -> None:
    cluster = Cluster(time="4:00:00", gpus_per_node=8, whole_nodes=True)
    small, middle, large, _ = chain(
        [*steps(20, 1), *steps(20, 4), *steps(20, 16)], {}, cluster, Limits()
    )
    assert (small.groups, small.per_node, small.elements) == (8, 8, 3)
    assert (middle.groups, middle.per_node, middle.elements) == (2, 8, 10)
    assert (large.groups, large.per_node, large.nodes) == (1, 8, 2)
    assert [job.gpus(cluster) for job in (small, middle, large)] == [8, 8, 16]


def test_without_gpus_a_node_takes_as_many_processes_as_it_is_told() -> None:
    cluster = Cluster(time="4:00:00", processes_per_node=4)
    small, large, _ = chain([*steps(2, 1), *steps(2, 8)], {}, cluster, Limits())
    assert (small.nodes, small.gpus(cluster)) == (1, 0)
    assert (large.nodes, large.per_node) == (2, 4)


def test_processes_that_cannot_be_spread_evenly() -> None:
    with pytest.raises(InputError, match=r"processes_per_trial: 9 .* 2 nodes of 8"):
        chain(steps(1, 9), {}, GPUS, Limits())


def test_max_array_size_packs() -> None:
    jobs = chain(steps(5000), {1: 1e6}, GPUS, Limits(array=1001))
    assert names(jobs)[0] == ("trials-1x", 1001)


def test_a_submit_limit_is_shared_among_the_arrays() -> None:
    wanted = [*steps(100, 1, scores=10), *steps(100, 8)]
    jobs = chain(wanted, {}, GPUS, Limits(submitted=24), queued=2)
    assert sum(job.elements for job in jobs) <= 24 - 2
    assert all(job.elements >= 1 for job in jobs)
    tight = chain(wanted, {}, GPUS, Limits(submitted=3), queued=50)
    assert [job.elements for job in tight] == [1, 1, 1, 1]


def test_limits_that_slurm_tells() -> None:
    config = "MaxArraySize            = 10001\nMaxJobCount             = 20000\n"
    assert max_array_size(config) == 10001
    assert max_array_size("") == 1001
    assoc, qos = "mine|200|normal\nother|5|\n", "normal|50|\nlong||7\n"
    assert submit_limits(assoc, qos, None, None) == [200, 5, 50]
    assert submit_limits(assoc, qos, "mine", None) == [200, 50]
    assert submit_limits(assoc, qos, "mine", "long") == [200, 7]
    assert submit_limits("", "", None, None) == []
