"""A real SLURM cluster on one machine: munged, slurmctld and several slurmd as plain processes.

As a program it runs one command with such a cluster around it:

    python tests/slurm/cluster.py [--nodes N] -- COMMAND ...

Each node is a set of Linux namespaces with a name, processes and (as root) a network of its own.
So a node can be killed whole or cut off, and nothing that runs on it outlives it: the first
process of each dies with this one, however this one ends.
"""

import argparse
import contextlib
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from cluster_config import Address, Shape, write_config

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
DAEMONS = ["munged", "slurmctld", "slurmd", "slurmstepd"]
TOOLS = ["munge", "sbatch", "unshare", "nsenter", "setpriv"]
NODE_NAMESPACES = ["--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
# $1 the node's name, $2 its hosts file. It stays and reaps the orphans of the node.
NODE_INIT = """
hostname "$1" && mount --bind "$2" /etc/hosts && { ip link set lo up || true; } 2>/dev/null
echo up
while :; do sleep 3600 & wait $!; done
"""
SLURMD_PORT = 6818
BRIDGE = "bt"


class NoClusterError(Exception):
    """This machine cannot have a cluster; the text says why."""


class Cluster:
    """One cluster from `start` to `stop`.

    Use it from the thread that started it, which the daemons do not outlive.
    """

    def __init__(self, shape: Shape | None = None) -> None:
        self.shape = shape or Shape()
        self.as_root = os.geteuid() == 0
        check(self.as_root)
        # Short, for the sockets in it: their paths may have 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.bridge = f"{BRIDGE}{os.getpid()}x{random.randrange(10)}"
        self._munged: subprocess.Popen | None = None
        self._controller: subprocess.Popen | None = None
        self._nodes: dict[str, subprocess.Popen] = {}
        self._slurmds: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Cluster":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What a client of this cluster needs."""
        return {**os.environ, "PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}

    # ------------------------------------------------------------ from start to stop

    def start(self) -> None:
        """Start all daemons; returns when every node is idle."""
        for name in ("log", "state", "spool"):
            (self.folder / name).mkdir()
        controller, self._addresses = self._make_addresses()
        write_config(self.folder, self.shape, controller, self._addresses)
        if self.as_root:
            self._start_bridge(controller.host)
        self._start_munged()
        self.start_controller()
        for name in self.shape.names:
            self.start_node(name)
        self.wait_for(self._is_ready, 60, "idle nodes")

    def stop(self) -> None:
        """End everything and remove the folder."""
        daemons = (*self._nodes.values(), *self._slurmds.values(), self._munged)
        for process in (self._controller, *daemons):
            _kill(process)
        if self.as_root:
            _call("ip", "link", "del", self.bridge)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------ clients

    def run(self, *command: str, check: bool = True, timeout_s: float = 60) -> str:
        """What a client command prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout_s
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: rc {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def submit(self, script: str, *options: str) -> int:
        """Submit the text of a shell script; the job's number."""
        path = self.folder / "job.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        output = ("--output", str(self.folder / "log" / "job-%A_%a.txt"))
        return int(self.run("sbatch", "--parsable", *output, *options, str(path)))

    def job_states(self, job: int | None = None) -> dict[str, str]:
        """State by job id, ended ones too; elements of arrays are 7_0, 7_1, ..."""
        chosen = ("-j", str(job)) if job is not None else ()
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i %T", *chosen).splitlines()
        return dict(line.split() for line in lines)

    def node_states(self) -> dict[str, str]:
        """State by node: idle, mixed, allocated, down, ...; a star: it does not answer."""
        lines = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T", check=False)
        return dict(line.split() for line in lines.splitlines())

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until a condition holds; TimeoutError with the end of the logs if it never does."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} in {timeout_s:.0f} s\n{self.log_tails()}")
            time.sleep(0.2)

    def wait_until_over(self, timeout_s: float) -> None:
        """Wait until no job waits, runs or ends; what the controller has held is set free."""
        self.wait_for(self._is_over, timeout_s, "empty queue")

    def wait_until_saved(self, job: int) -> None:
        """Wait until the controller has saved this job, as it is now: it forgets the rest."""
        saved = self.folder / "state" / "job_state"
        for mark in ("once", "again"):  # the first may have been under way
            asked = time.time()
            self.run("scontrol", "update", f"jobid={job}", f"admincomment={mark}")
            is_newer = lambda: saved.exists() and saved.stat().st_mtime > asked  # noqa: B023, E731
            self.wait_for(is_newer, 30, "saved state")

    def reset(self) -> None:
        """As at its start: no jobs, all nodes idle. A failed test leaves neither."""
        self.run("scancel", "--user", getpass.getuser(), check=False)
        for name in self.shape.names:
            if name not in self._nodes:
                self.start_node(name)
            elif name not in self._slurmds:
                self.start_slurmd(name)
            if self.as_root:
                self.heal(name)
        self.wait_until_over(60)
        self.wait_for(self._is_ready, 60, "idle nodes")

    def mend(self) -> None:
        """What an administrator does after a crash of the controller.

        It starts what it has forgotten that it had started; where that still runs, it takes the
        node away and holds the job.
        """
        for name, state in self.node_states().items():
            if state.startswith("drain"):
                self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        held = self.run("squeue", "-h", "-r", "-t", "PD", "-o", "%i %r", check=False)
        for line in held.splitlines():
            job, reason = line.split(maxsplit=1)
            if "requeued held" in reason or reason == "JobHeldAdmin":
                self.run("scontrol", "release", job, check=False)

    def log_tails(self, lines: int = 8) -> str:
        """The ends of the daemons' logs."""
        parts = []
        for path in sorted((self.folder / "log").glob("*.log")):
            end = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path.name}", *end]))
        return "\n".join(parts)

    # ------------------------------------------------------------ what goes wrong

    def kill_node(self, name: str) -> None:
        """Everything on a node dies at once, as when its power fails."""
        _kill(self._nodes.pop(name))
        _kill(self._slurmds.pop(name, None))

    def start_node(self, name: str) -> None:
        """Start a node, or start a killed one again."""
        own = ["--net"] if self.as_root else ["--map-current-user", "--keep-caps"]
        init = ["bash", "-c", NODE_INIT, "init", name, str(self.folder / "hosts")]
        self._nodes[name] = self._spawn(
            ["unshare", *own, *NODE_NAMESPACES, *init], f"{name}.out", subprocess.PIPE
        )
        if self._nodes[name].stdout.readline().strip() != "up":  # type: ignore[union-attr]
            raise NoClusterError(f"{name}: no namespaces\n{self._output(f'{name}.out')}")
        if self.as_root:
            self._connect(name)
        self.start_slurmd(name)

    def kill_slurmd(self, name: str) -> None:
        """Only the node's daemon dies; the processes of its jobs run on."""
        for process in psutil.Process(self._slurmds[name].pid).children():
            process.kill()
        self._slurmds.pop(name).wait()

    def start_slurmd(self, name: str) -> None:
        """Start a node's daemon."""
        user = [] if self.as_root else ["--user", "--preserve-credentials"]
        net = ["--net"] if self.as_root else []
        enter = ["nsenter", "-t", str(self._init(name)), *user, *net, "--uts", "--mount", "--pid"]
        (self.folder / "spool" / name).mkdir(exist_ok=True)
        stepd = shutil.which("slurmstepd", path=PATH)
        daemon = ["slurmd", "-D", "-N", name, "-d", str(stepd)]
        self._slurmds[name] = self._spawn([*enter, "--", *daemon], f"slurmd.{name}.out")

    def cut_off(self, name: str) -> None:
        """Nobody reaches the node any more; what runs there runs on, on the same files."""
        self._set_link(name, "down")

    def heal(self, name: str) -> None:
        """Undo `cut_off`."""
        self._set_link(name, "up")

    def crash_controller(self) -> None:
        """slurmctld dies without saving anything."""
        _kill(self._controller)

    def start_controller(self) -> None:
        """Start slurmctld, on the state that it saved last; returns when it answers."""
        self._controller = self._spawn(["slurmctld", "-D"], "slurmctld.out")
        answers = lambda: " UP" in self.run("scontrol", "ping", check=False)  # noqa: E731
        self.wait_for(answers, 30, "slurmctld")

    # ------------------------------------------------------------ inside

    def _is_over(self) -> bool:
        if not self.run("squeue", "-h").strip():
            return True
        self.mend()
        return False

    def _is_ready(self) -> bool:
        return list(self.node_states().values()) == ["idle"] * self.shape.nodes

    def _make_addresses(self) -> tuple[Address, dict[str, Address]]:
        """Of the controller and of every node: own addresses as root, else own ports."""
        port, *ports = _free_ports(1 + self.shape.nodes)
        if not self.as_root:
            nodes = [Address("127.0.0.1", p) for p in ports]
            return Address("127.0.0.1", port), dict(zip(self.shape.names, nodes, strict=True))
        network = f"10.{random.randrange(20, 250)}.{random.randrange(1, 250)}"
        nodes = [Address(f"{network}.{i + 1}", SLURMD_PORT) for i in range(self.shape.nodes)]
        return Address(f"{network}.254", port), dict(zip(self.shape.names, nodes, strict=True))

    def _start_bridge(self, address: str) -> None:
        _remove_old_bridges()
        for command in (
            ("link", "add", self.bridge, "type", "bridge"),
            ("addr", "add", f"{address}/24", "dev", self.bridge),
            ("link", "set", self.bridge, "up"),
        ):
            if error := _call("ip", *command):
                raise NoClusterError(f"ip {' '.join(command)}: {error}")

    def _connect(self, name: str) -> None:
        """A cable from the bridge to the node; it goes away with the node."""
        init, cable = str(self._init(name)), self._cable(name)
        inside = ("nsenter", "-t", init, "--net", "ip")
        for command in (
            ("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", init),
            ("ip", "link", "set", cable, "master", self.bridge, "up"),
            (*inside, "addr", "add", f"{self._addresses[name].host}/24", "dev", "eth0"),
            (*inside, "link", "set", "eth0", "up"),
        ):
            if error := _call(*command):
                raise NoClusterError(f"{' '.join(command)}: {error}")

    def _set_link(self, name: str, state: str) -> None:
        if not self.as_root:
            raise NoClusterError("only root can cut a node off")
        if error := _call("ip", "link", "set", self._cable(name), state):
            raise RuntimeError(error)

    def _cable(self, name: str) -> str:
        return f"{self.bridge}-{name.removeprefix('node')}"

    def _init(self, name: str) -> int:
        """The node's first process, as seen from here."""
        return psutil.Process(self._nodes[name].pid).children()[0].pid

    def _start_munged(self) -> None:
        key, munge_socket = self.folder / "munge.key", self.folder / "munge.sock"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        places = {
            "key-file": key,
            "socket": munge_socket,
            "pid-file": self.folder / "munged.pid",
            "log-file": self.folder / "log" / "munged.log",
            "seed-file": self.folder / "munge.seed",
        }
        options = [f"--{name}={path}" for name, path in places.items()]
        self._munged = self._spawn(["munged", "--foreground", "--force", *options], "munged.out")
        answers = lambda: _call("munge", "-S", str(munge_socket), "-n") is None  # noqa: E731
        self.wait_for(answers, 10, "munged")

    def _spawn(
        self, command: list[str], output: str, stdout: int | None = None
    ) -> subprocess.Popen:
        """A process in the foreground that does not outlive this one."""
        with (self.folder / "log" / output).open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def _output(self, name: str) -> str:
        return (self.folder / "log" / name).read_text(errors="replace")


def check(as_root: bool) -> None:
    """NoClusterError unless this machine has what a cluster needs."""
    needed = [*DAEMONS, *TOOLS, *(["ip"] if as_root else [])]
    missing = [name for name in needed if not shutil.which(name, path=PATH)]
    if missing:
        raise NoClusterError(f"SLURM: no {', '.join(missing)} here; `make slurm-packages` as root")
    own = ["--net"] if as_root else ["--map-current-user", "--keep-caps"]
    if error := _call(
        "unshare", *own, *NODE_NAMESPACES, "mount", "--bind", "/etc/hosts", "/etc/hosts"
    ):
        raise NoClusterError(f"SLURM: no namespaces for nodes here: {error}")


def _call(*command: str) -> str | None:
    """None, or why it failed."""
    done = subprocess.run(command, env={**os.environ, "PATH": PATH}, capture_output=True, text=True)
    return (done.stderr.strip() or f"rc {done.returncode}") if done.returncode else None


def _kill(process: subprocess.Popen | None) -> None:
    if process is not None:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel hands out."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(12000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            found.append(port)
    return found


def _remove_old_bridges() -> None:
    """Bridges are all that a killed test run can leave behind."""
    for path in Path("/sys/class/net").glob(f"{BRIDGE}*x?"):
        owner = path.name.removeprefix(BRIDGE).split("x")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            _call("ip", "link", "del", path.name)


def main() -> int:
    """Run a command inside a cluster and wait until the cluster has no jobs left."""
    parser = argparse.ArgumentParser(description="run a command with a SLURM cluster around it")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with Cluster(Shape(nodes=options.nodes)) as cluster:
            code = subprocess.run(options.command, env=cluster.environment).returncode
            cluster.wait_until_over(24 * 3600)
            return code
    except NoClusterError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
