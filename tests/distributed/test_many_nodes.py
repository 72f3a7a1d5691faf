"""Several machines give the same as one, stop in order, and survive the loss of one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_study
import yaml
from machines import Machine, Started, machines, why_not_namespaces
from safetensors.numpy import load_file
from small_study import records, write_study

pytestmark = pytest.mark.distributed
SHORT = {"max_steps": 6, "learning_rate": 1e-3, "batch_size": 10, "max_length": 24}
LONG = {**SHORT, "max_steps": 60, "epochs": 6}
TICKETS = {"ratios": [0, 0.3, 0.6], "kinds": ["winning"]}
SCONTROL = "#!/bin/sh\nprintf '%s\\n' 10.77.0.1 10.77.0.2\n"


@pytest.fixture(scope="module")
def network() -> Iterator[list[Machine]]:
    with machines(4) as four:
        yield four


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, network: list[Machine]) -> Path:
    """A short study, scored by four ranks of one machine."""
    root = tmp_path_factory.mktemp("nodes")
    write_study(root, training=SHORT, tickets=TICKETS, seeds=[0], execution={"threads": 1})
    words = ("--nproc-per-node", "4", "score", "study.yaml", "--out", "one")
    all_end(0, network[0].start(*words, cwd=root))
    return root


def all_end(code: int, *started: Started) -> None:
    ended = [each.ended() for each in started]
    assert ended == [code] * len(started), "\n".join(each.said() for each in started)


def results(run: Path) -> dict[str, np.ndarray]:
    """Trained weights, predictions and scores."""
    patterns = ("weights/*", "trials/*/*", "scores/*/*")
    paths = [path for p in patterns for path in run.glob(f"{p}.safetensors")]
    assert len({path.relative_to(run).parts[0] for path in paths}) == 3
    return {f"{p.relative_to(run)} {k}": v for p in paths for k, v in load_file(p).items()}


def assert_same(one: Path, other: Path) -> None:
    expected, found = results(one), results(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        if name.startswith("scores/"):
            np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
        else:
            scale = np.abs(value).max() + 1e-3
            assert np.abs(value - found[name]).max() <= 1e-5 * scale + 2e-5, name


def test_two_machines_of_a_hostfile_give_the_same_as_one(
    root: Path, network: list[Machine]
) -> None:
    hosts = root / "hosts"
    hosts.write_text("".join(f"{m.address} slots=2\n" for m in network[:2]))
    where = ["--hostfile", str(hosts), "--job", "two"]
    if why_not_namespaces():
        where += ["--node-rank"]
    started = []
    for rank, machine in enumerate(network[:2]):
        own = [*where, str(rank)] if why_not_namespaces() else where
        words = (*own, "score", "study.yaml", "--out", "two")
        started.append(machine.start(*words, cwd=root))
    all_end(0, *started)
    assert_same(root / "one", root / "two")
    said = "".join(each.said() for each in started)
    assert said.count("checking models and data") == 1, "not one rank speaks"
    assert said.count("record.json") == 1


def test_four_machines_by_hand_give_the_same_as_one(root: Path, network: list[Machine]) -> None:
    started = []
    for rank, machine in reversed(list(enumerate(network))):
        here = {"NNODES": "4", "NODE_RANK": str(rank), "MASTER_ADDR": network[0].address}
        words = ("--job", "four", "score", "study.yaml", "--out", "four")
        started.append(machine.start(*words, cwd=root, **here))
    all_end(0, *started)
    assert_same(root / "one", root / "four")


def slurm_task(folder: Path, node: int) -> dict[str, str]:
    """What `srun` would say on the node of a job on the first two machines."""
    program = folder / "bin" / "scontrol"
    program.parent.mkdir(exist_ok=True)
    program.write_text(SCONTROL if not why_not_namespaces() else SCONTROL.replace("10.77", "127.0"))
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        **{"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_NNODES": "2"},
        **{"SLURM_NODEID": str(node), "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "m[1-2]"},
    }


@pytest.fixture(scope="module")
def prepared(root: Path) -> Path:
    """The run folder of a longer study, with everything that a worker needs."""
    execution = {"threads": 1, "checkpoint_every_s": 0}
    study = root / "long.yaml"
    keys = {"training": LONG, "tickets": {"ratios": [0]}, "seeds": [0], "execution": execution}
    study.write_text(yaml.safe_dump(small_study.study(root, **keys)))
    command = [sys.executable, "-m", "bigtickets", "prefetch", str(study), "--out", "long"]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root / "long"


@pytest.fixture
def long_run(prepared: Path, tmp_path: Path) -> Path:
    """A folder with a copy of it, `run`, in which nothing is done."""
    shutil.copytree(prepared, tmp_path / "run")
    return tmp_path


def wait_for_checkpoint(run: Path, *started: Started) -> None:
    deadline = time.monotonic() + 200
    while not list(run.glob("work/*/attempt-*/checkpoints/step-*[0-9]")):  # not step-3.tmp
        said = "".join(each.said() for each in started)
        assert time.monotonic() < deadline, said
        assert all(each.process.poll() is None for each in started), said
        time.sleep(0.05)


def test_usr2_to_one_node_of_an_srun_stops_both_and_another_start_goes_on(
    long_run: Path, network: list[Machine]
) -> None:
    words = ("--nproc-per-node", "1", "worker", "run")
    tasks = [slurm_task(long_run, node) for node in range(2)]
    started = [m.start(*words, cwd=long_run, **t) for m, t in zip(network[:2], tasks, strict=True)]
    wait_for_checkpoint(long_run / "run", *started)
    started[1].process.send_signal(signal.SIGUSR2)
    all_end(75, *started)
    assert not records(long_run / "run")
    tasks = [{**task, "SLURM_RESTART_COUNT": "1"} for task in tasks]
    started = [m.start(*words, cwd=long_run, **t) for m, t in zip(network[:2], tasks, strict=True)]
    all_end(0, *started)
    (record,) = records(long_run / "run").values()
    assert record["counts"]["steps"] == 60
    assert len(record["resumed_at"]) == 1


@pytest.mark.parametrize("loss", ["power", "network"])
def test_a_lost_machine_does_not_hang_the_other(
    loss: str, long_run: Path, network: list[Machine]
) -> None:
    if loss == "network" and why_not_namespaces():
        pytest.skip(why_not_namespaces())
    alive, lost = network[:2]
    words = ("--nnodes", "2", "--master-addr", alive.address, "--nproc-per-node", "1")
    words += ("--max-restarts", "0", "--job", loss, "--wait", "60")
    started = [
        machine.start(
            *(*words, "--node-rank", str(rank), "worker", "run"),
            cwd=long_run,
            BIGTICKETS_SILENCE_S="10",
        )
        for rank, machine in enumerate((alive, lost))
    ]
    wait_for_checkpoint(long_run / "run", *started)
    if loss == "power":
        started[1].lose_power()
    else:
        subprocess.run([*lost.link, "down"], check=True)
    try:
        assert started[0].ended(within_s=300) == 1, started[0].said()
        assert "a rank died" in started[0].said()
        if loss == "network":  # and the machine that was cut off ends too
            assert started[1].ended(within_s=300) == 1, started[1].said()
            assert "no sign of life" in started[0].said() + started[1].said()
    finally:
        started[1].lose_power()
        if loss == "network":
            subprocess.run([*lost.link, "up"], check=True)
    assert not records(long_run / "run")
    all_end(0, alive.start("worker", "run", cwd=long_run))
    (record,) = records(long_run / "run").values()
    assert record["resumed_at"], "it began anew"


def test_an_error_is_said_once_and_its_code_arrives(root: Path, network: list[Machine]) -> None:
    """From any folder; on the second machine alone there is no study file."""
    words = ("--nnodes", "2", "--master-addr", network[0].address, "--job", "wrong")
    started = []
    for rank, machine in enumerate(network[:2]):
        folder = root / f"elsewhere-{rank}"
        folder.mkdir()
        if rank == 0:
            shutil.copy(root / "study.yaml", folder / "study.yaml")
        own = ("--node-rank", str(rank), "score", "study.yaml", "--out", "run")
        started.append(machine.start(*words, *own, cwd=folder))
    all_end(2, *started)
    lines = [line for each in started for line in each.said().splitlines()]
    (line,) = [line for line in lines if "bigtickets" in line]
    assert "study.yaml: no such file" in line
    assert not (root / "elsewhere-0" / "run").exists()


def test_deepspeeds_launcher_starts_a_worker_on_two_machines(
    long_run: Path, network: list[Machine]
) -> None:
    hosts = long_run / "hosts"
    names = [m.address for m in network[:2]] if not why_not_namespaces() else ["a", "b"]
    hosts.write_text("".join(f"{name} slots=1\n" for name in names))
    worker = Path(__file__).parents[2] / "launch" / "worker.py"
    started = []
    for rank, machine in enumerate(network[:2]):
        words = ("--hostfile", str(hosts), "--no_ssh", "--node_rank", str(rank))
        words += ("--master_addr", network[0].address, "--master_port", "29511")
        started.append(
            machine.start(
                *(*words, str(worker), "run"),
                cwd=long_run,
                program=(sys.executable, "-m", "deepspeed.launcher.runner"),
                DS_ACCELERATOR="cpu",
            )
        )
    all_end(0, *started)
    assert len(records(long_run / "run")) == 1


def test_plain_torchrun_starts_a_worker_on_two_machines(
    long_run: Path, network: list[Machine]
) -> None:
    """The machines here share a name, so each is told its address and who is the first."""
    first, worker = network[0].address, Path(__file__).parents[2] / "launch" / "worker.py"
    started = []
    for rank, machine in enumerate(network[:2]):
        words = ("--nnodes", "2", "--nproc_per_node", "1", "--local_addr", machine.address)
        words += ("--rdzv_backend", "c10d", "--rdzv_endpoint", f"{first}:29533")
        words += ("--rdzv_id", "plain", "--rdzv_conf", f"is_host={int(rank == 0)}")
        program = (sys.executable, "-m", "torch.distributed.run")
        started.append(machine.start(*words, str(worker), "run", cwd=long_run, program=program))
    all_end(0, *started)
    (record,) = records(long_run / "run").values()
    assert record["execution"]["world_size"] == 2
