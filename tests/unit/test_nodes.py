"""Which machine of a group this is, and where its machines meet."""

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from bigtickets.errors import BigticketsError, InputError, Interrupted
from bigtickets.running.groups.hostfile import Host, own_line, read_hostfile
from bigtickets.running.groups.launching import node_command
from bigtickets.running.groups.meeting import candidates, meeting
from bigtickets.running.groups.nodes import Asked, Node, find_node

VARIABLES = ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES")
SCONTROL = """#!/bin/sh
[ "$1 $2 $3" = "show hostnames gpu[07-09]" ] && printf 'gpu07\\ngpu08\\ngpu09\\n'
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*VARIABLES, *(n for n in os.environ if n.startswith("SLURM_"))]:
        monkeypatch.delenv(name, raising=False)


def hostfile(folder: Path, text: str) -> Path:
    path = folder / "hosts"
    path.write_text(text)
    return path


def test_a_hostfile_is_read_in_its_order(tmp_path: Path) -> None:
    path = hostfile(tmp_path, "# mine\nb slots=2\n\n a   slots=16 # big\n")
    assert read_hostfile(path) == [Host("b", 2), Host("a", 16)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no host"),
        ("a\n", "line 1: 'a'"),
        ("a slots=2\nb slots=0\n", "line 2"),
        ("a slots=2\na slots=2\n", "line 2: a stands twice"),
    ],
)
def test_a_bad_hostfile_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_hostfile(hostfile(tmp_path, text))


def test_a_machine_finds_its_line_by_name_or_address(tmp_path: Path) -> None:
    path = hostfile(tmp_path, "")
    assert own_line(path, [Host("198.51.100.7", 1), Host("127.0.0.1", 1)]) == 1
    assert own_line(path, [Host(socket.gethostname(), 1), Host("198.51.100.7", 1)]) == 0
    for hosts in ([Host("198.51.100.7", 1)], [Host("127.0.0.1", 1), Host("localhost", 1)]):
        with pytest.raises(InputError, match="--node-rank"):
            own_line(path, hosts)


def test_alone_without_a_word() -> None:
    assert find_node(Asked(), 3) == Node(0, 1, 3, "", None, "")


def test_by_hand_from_words_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Node(1, 2, 4, "alpha", 30000, "by-hand")
    assert find_node(Asked(2, 1, 4, "alpha", 30000), 1) == expected
    for name, value in (("NNODES", "2"), ("NODE_RANK", "1"), ("MASTER_ADDR", "alpha")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "30000")
    assert find_node(Asked(nproc_per_node=4), 1) == expected
    assert find_node(Asked(node_rank=0), 1).rank == 0
    monkeypatch.setenv("NODE_RANK", "one")
    with pytest.raises(InputError, match="NODE_RANK: 'one'"):
        find_node(Asked(), 1)


@pytest.mark.parametrize("asked", [Asked(2), Asked(2, 0), Asked(2, None, None, "alpha")])
def test_by_hand_half_said_is_an_error(asked: Asked) -> None:
    with pytest.raises(InputError, match=r"--node-rank .* --master-addr"):
        find_node(asked, 1)


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_node_that_does_not_exist_is_an_error(rank: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--node-rank"):
        find_node(Asked(2, rank, None, "alpha"), 1)
    path = hostfile(tmp_path, "a slots=1\nb slots=1\n")
    with pytest.raises(InputError, match="--node-rank"):
        find_node(Asked(node_rank=rank, hostfile=path), 1)


def test_by_hostfile(tmp_path: Path) -> None:
    path = hostfile(tmp_path, "198.51.100.7 slots=8\n127.0.0.1 slots=2\n")
    found = find_node(Asked(hostfile=path, master_port=30000), 1)
    assert found == Node(1, 2, 2, "198.51.100.7", 30000, "by-hostfile")
    with pytest.raises(InputError, match="--nnodes 3"):
        find_node(Asked(3, hostfile=path), 1)
    one = hostfile(tmp_path, "anything slots=2\n")
    assert find_node(Asked(hostfile=one), 1).count == 1


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The second of a step's three nodes, and a `scontrol`."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(SCONTROL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    step = {"JOB_ID": "77", "STEP_ID": "0", "NODEID": "1", "NNODES": "3", "LOCALID": "0"}
    for name, value in {**step, "JOB_NODELIST": "gpu[07-09]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return monkeypatch


def test_under_srun(srun: pytest.MonkeyPatch) -> None:
    found = find_node(Asked(), 4)
    assert found == Node(1, 3, 4, "gpu07", None, "77.0.0")
    srun.setenv("SLURM_RESTART_COUNT", "2")
    again = find_node(Asked(), 4)
    assert again.job == "77.0.2"
    assert candidates(again) != candidates(found)


def test_srun_with_two_tasks_on_a_node_is_an_error(srun: pytest.MonkeyPatch) -> None:
    srun.setenv("SLURM_LOCALID", "1")
    with pytest.raises(InputError, match="--ntasks-per-node=1"):
        find_node(Asked(), 1)


def test_a_batch_script_without_srun_is_alone(srun: pytest.MonkeyPatch) -> None:
    srun.delenv("SLURM_STEP_ID")
    assert find_node(Asked(), 2).count == 1


def test_srun_without_scontrol_says_what_to_give(srun: pytest.MonkeyPatch) -> None:
    srun.setenv("SLURM_JOB_NODELIST", "other[1-3]")
    with pytest.raises(InputError, match="--master-addr"):
        find_node(Asked(), 1)
    assert find_node(Asked(master_addr="gpu07"), 1).first == "gpu07"


def test_the_command_of_a_node() -> None:
    words = ["-m", "bigtickets.running.worker", "a run"]
    first = Node(0, 2, 4, "alpha", None, "77.0.0")
    assert node_command(first, 20123, words, 10, 600.0) == [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "4"),
        *("--max_restarts", "10", "--rdzv_backend", "c10d", "--rdzv_id", "77.0.0"),
        *("--rdzv_endpoint", "alpha:20123"),
        *("--rdzv_conf", "is_host=1,join_timeout=600,read_timeout=60"),
        *("--local_addr", "alpha", *words),
    ]
    other = node_command(Node(1, 2, 4, "127.0.0.1", None, "77.0.0"), 20123, words, 10, 600.0)
    assert other[other.index("--local_addr") + 1] == "127.0.0.1"
    assert "is_host=0" in other[other.index("--rdzv_conf") + 1]
    alone = node_command(Node(0, 1, 4, "", None, ""), 0, words, 0, 600.0)
    assert alone[3:] == ["--standalone", "--nproc_per_node", "4", "--max_restarts", "0", *words]


def nobody_stops() -> None:
    """No stop is asked for."""


def met(node: Node) -> int:
    with meeting(node, 5.0, nobody_stops) as port:
        return port


def nodes(job: str, port: int | None = None) -> tuple[Node, Node]:
    name = f"{job}-{os.getpid()}"  # other tests may run on this machine
    return Node(0, 2, 1, "127.0.0.1", port, name), Node(1, 2, 1, "127.0.0.1", port, name)


def test_nodes_learn_the_port_from_node_0() -> None:
    first, second = nodes("meet")
    with meeting(first, 5.0, nobody_stops) as port:
        assert met(second) == port
        assert port not in (29500, candidates(first)[0])


def test_a_taken_port_is_passed_over() -> None:
    """Whoever has it may be silent, or another group: the others know node 0 by its answer."""
    first, second = nodes("taken")
    wanted = candidates(first)
    silent = socket.create_server(("", wanted[0]))
    babbler = socket.create_server(("", wanted[1]))

    def babble() -> None:
        connection, _ = babbler.accept()
        with connection:
            connection.sendall(f"bigtickets {first.job}-too 4\n".encode())

    threading.Thread(target=babble, daemon=True).start()
    with silent, babbler, meeting(first, 5.0, nobody_stops) as port:
        assert port not in wanted[:2]
        with meeting(second, 30.0, nobody_stops) as told:
            assert told == port


def test_a_port_that_was_asked_for_and_is_taken_is_an_error() -> None:
    with (
        socket.create_server(("", 0)) as other,
        pytest.raises(InputError, match="another --master-port"),
    ):
        met(nodes("asked", other.getsockname()[1])[0])


def test_two_groups_of_one_name_are_an_error() -> None:
    first, _ = nodes("twice")
    with (
        meeting(first, 5.0, nobody_stops),
        pytest.raises(InputError, match=r"--job twice-.*: another group"),
    ):
        met(first)


def test_waiting_for_node_0_ends() -> None:
    _, second = nodes("nobody")
    with pytest.raises(BigticketsError, match="did not answer"), meeting(second, 0.1, nobody_stops):
        pass

    def stop() -> None:
        raise Interrupted("stopped early")

    with pytest.raises(Interrupted), meeting(second, 600.0, stop):
        pass
