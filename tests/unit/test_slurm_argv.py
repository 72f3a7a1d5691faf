"""The sbatch calls, word for word: nothing in them is ever read by a shell."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigtickets.running.slurm.argv import Call, environment, sbatch_argv, script
from bigtickets.running.slurm.chain import Job
from bigtickets.running.slurm.cluster import Cluster, read_cluster
from bigtickets.study.folder import RunFolder

CLUSTERS = Path(__file__).parents[2] / "slurm" / "clusters"
RUN = RunFolder(Path("/data/my runs/100%"))


def argv(job: Job, cluster: Cluster, **more: object) -> list[str]:
    call = replace(Call(job, "0123456789abcdef", "ladder"), **more)
    return sbatch_argv(call, cluster, RUN)


def test_golden_one_gpu_trials() -> None:
    job = Job("trials", elements=40)
    found = argv(job, read_cluster(CLUSTERS / "example.yaml"), after=("17",), exclude=("node5",))
    assert found == [
        "sbatch",
        "--parsable",
        "--job-name=ladder-trials-1x",
        "--comment=bigtickets:0123456789abcdef",
        "--chdir=/data/my runs/100%",
        "--output=/data/my runs/100%%/logs/trials-1x-%A_%a.out",
        "--dependency=afterany:17",
        "--partition=gpu",
        "--account=my-project",
        "--qos=normal",
        "--constraint=a100",
        "--reservation=my-days",
        "--exclude=node3,node[7-9],node5",
        "--array=0-39%16",
        "--time=4:00:00",
        "--signal=B:USR2@120",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=12",
        "--gres=gpu:a100:1",
        "--mem=102400M",
        "--nice=100",
        "--switches=1",
        "--requeue",
        "--open-mode=append",
        "--export=ALL",
        str(script()),
        "trials",
        "/data/my runs/100%",
        "--uid",
        "0123456789abcdef",
        "--processes",
        "1",
        "--groups",
        "1",
        "--per-node",
        "1",
    ]


def test_golden_the_last_job_of_a_cluster_without_gpus() -> None:
    found = argv(Job("finish"), read_cluster(CLUSTERS / "demo.yaml"), after=("1", "2"))
    assert found == [
        "sbatch",
        "--parsable",
        "--job-name=ladder-finish",
        "--comment=bigtickets:0123456789abcdef",
        "--chdir=/data/my runs/100%",
        "--output=/data/my runs/100%%/logs/finish-%j.out",
        "--dependency=afterany:1:2",
        "--time=0:30:00",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--requeue",
        "--open-mode=append",
        "--export=ALL",
        str(script()),
        "finish",
        "/data/my runs/100%",
        "--uid",
        "0123456789abcdef",
    ]


def test_four_nodes_for_one_trial() -> None:
    cluster = Cluster(time="4:00:00", gpus_per_node=8, cpus=10, memory_gb=50.5)
    found = argv(Job("trials", processes=32, nodes=4), cluster)
    assert {"--nodes=4", "--gpus-per-node=8", "--cpus-per-task=80", "--mem=413696M"} <= set(found)
    assert found[-6:] == ["--processes", "32", "--groups", "1", "--per-node", "8"]


def test_whole_nodes_and_a_light_partition() -> None:
    cluster = Cluster(
        time="4:00:00", gpus_per_node=8, whole_nodes=True, partition="big", light_partition="small"
    )
    found = argv(Job("trials", groups=8), cluster)
    assert {"--exclusive", "--gpus-per-node=8", "--partition=big"} <= set(found)
    light = argv(Job("finish"), cluster)
    assert "--partition=small" in light
    assert not {"--exclusive", "--gpus-per-node=8"} & set(light)


def test_mail_comes_from_the_last_job_only() -> None:
    cluster = Cluster(time="4:00:00", mail_user="me@example.org")
    assert "--mail-user=me@example.org" in argv(Job("finish"), cluster)
    assert not any("mail" in word for word in argv(Job("trials"), cluster))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(st.characters(exclude_characters="\0\n\r\\/", exclude_categories=["Cs"]), min_size=1)
)
def test_any_folder_is_one_word(name: str) -> None:
    folder = RunFolder(Path("/runs") / name)
    found = sbatch_argv(Call(Job("trials"), "u", "s"), Cluster(time="1:00:00"), folder)
    assert found[found.index(str(script())) + 2] == str(folder.root)
    assert found[4] == f"--chdir={folder.root}"
    # sbatch replaces %j and its like in the names of outputs.
    output = next(word for word in found if word.startswith("--output="))
    kept = output.replace("%%", "").replace("%A_%a", "")
    assert "%" not in kept
    assert kept == f"--output={folder.root}/logs/trials-1x-.out".replace("%", "")


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    cluster = Cluster(time="1:00:00", save_seconds=100, scratch="$TMPDIR", setup=("module load x",))
    found = environment(Job("trials"), cluster, RUN)
    assert found["BIGTICKETS_PYTHON"] == sys.executable
    assert found["BIGTICKETS_SECONDS"] == "3500"
    assert found["BIGTICKETS_SETUP"] == "/data/my runs/100%/slurm/setup.sh"
    assert found["BIGTICKETS_CONTAINER"] == ""
    assert found["BIGTICKETS_SCRATCH"] == "$TMPDIR"
    assert found["PYTHONPATH"].endswith(":/mine")
    # What SLURM told the job that we are in would mislead the next one.
    assert {name for name in found if name.startswith("SLURM")} == {"SLURM_CONF"}
    assert environment(Job("finish"), cluster, RUN)["BIGTICKETS_SECONDS"] == ""
