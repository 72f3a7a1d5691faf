"""What squeue and sbatch say, and what it means."""

from pathlib import Path

import pytest

from bigtickets.running.slurm import journal
from bigtickets.running.slurm.journal import Entry
from bigtickets.running.slurm.queue import elements_waiting, job_facts, live_uids, parse
from bigtickets.running.slurm.refusals import explain, is_limit, is_unclear
from bigtickets.study.folder import RunFolder

SQUEUE = """\
12|12_[4-9%2]|PENDING|JobArrayTaskLimit||bigtickets:aa
12|12_3|RUNNING|None|node[1-2]|bigtickets:aa
12|12_1|COMPLETED|None|node1|bigtickets:aa
13|13|PENDING|Dependency||bigtickets:bb
14|14|FAILED|NonZeroExitCode|node2|bigtickets:cc
15|15|RUNNING|None|node2|someone's own | comment
16|16|RUNNING|None|node2|(null)
slurm_load_jobs error: broken
"""


def test_only_our_jobs_are_read() -> None:
    jobs = parse(SQUEUE)
    assert [(job.element, job.uid) for job in jobs] == [
        ("12_[4-9%2]", "aa"),
        ("12_3", "aa"),
        ("12_1", "aa"),
        ("13", "bb"),
        ("14", "cc"),
    ]
    assert live_uids(jobs) == {"aa", "bb"}


@pytest.mark.parametrize(
    ("element", "count"),
    [
        ("12", 1),
        ("12_3", 1),
        ("12_[4-9]", 6),
        ("12_[4-9%2]", 6),
        ("12_[4-9,12,20-29:3%2]", 11),
        ("12_[5]", 1),
        ("12_[4-9,...]", 6),
    ],
)
def test_elements_of_a_line(element: str, count: int) -> None:
    assert elements_waiting(element) == count


def test_states_of_a_run_s_jobs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    array = Entry("aa", 1, "trials", 8, elements=10, gpus=8, seconds=60)
    journal.change(folder, array, "submitted", "12")
    gone = Entry("dd", 1, "scoring", 8, elements=1, gpus=8, seconds=60)
    journal.change(folder, gone, "submitted", "11")
    journal.change(folder, Entry("ee", 1, "finish", 1, 1, 0, 60), "refused")
    forgotten, found = job_facts(folder, parse(SQUEUE))
    assert (forgotten["job"], forgotten["states"]) == ("11", {})
    assert found["name"] == "trials-8x"
    assert found["states"] == {"PENDING": 6, "RUNNING": 1, "COMPLETED": 1}
    assert found["reasons"] == ["JobArrayTaskLimit"]
    assert found["nodes"] == ["node[1-2]"]


REFUSED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("stderr", "key"),
    [
        (REFUSED + "Invalid account or account/partition combination specified", "`account`"),
        (REFUSED + "Invalid qos specification", "`qos`"),
        ("sbatch: error: invalid partition specified: gpux\n" + REFUSED, "`partition`"),
        (REFUSED + "Requested time limit is invalid (missing or exceeds some limit)", "`time`"),
        (REFUSED + "Requested node configuration is not available", "`gpus_per_node`"),
        (REFUSED + "Invalid generic resource (gres) specification", "`gres`"),
        (REFUSED + "Invalid feature specification", "`constraint`"),
        (REFUSED + "Requested reservation is invalid", "`reservation`"),
        (REFUSED + "Memory required by task is not available", "`memory_gb`"),
        ("sbatch: error: AssocMaxSubmitJobLimit\n" + REFUSED, "`max_submitted`"),
        ("sbatch: unrecognized option '--nicer=1'", "`extra`"),
    ],
)
def test_a_refusal_names_the_key_in_one_line(stderr: str, key: str) -> None:
    text = explain(stderr)
    assert key in text
    assert stderr.splitlines()[0].split("error: ")[-1].strip() in text
    assert "\n" not in text


def test_refusals_that_fewer_jobs_or_another_look_may_heal() -> None:
    limit = "sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + REFUSED + "Job violates accounting/"
    assert is_limit(limit + "QOS policy (job submit limit, user's size and/or time limits)")
    assert is_limit(REFUSED + "Invalid job array specification")
    assert not is_limit(REFUSED + "Invalid qos specification")
    assert is_unclear(REFUSED + "Unable to contact slurm controller (connect failure)")
    assert is_unclear(REFUSED + "Socket timed out on send/recv operation")
    assert not is_unclear(REFUSED + "Requested time limit is invalid (missing or exceeds limit)")
