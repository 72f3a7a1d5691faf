"""Machines for tests: network namespaces with an address each, joined by a bridge.

Where namespaces cannot be made (not root, no `ip`), all machines are this one, on one address.
"""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

NODE = Path(__file__).parents[2] / "launch" / "node.py"


@dataclass(frozen=True)
class Machine:
    """Where a launcher is started."""

    address: str
    prefix: tuple[str, ...] = ()
    """Argv that moves what follows to this machine."""
    card: str = "lo"
    """Its network interface."""
    link: tuple[str, ...] = ()
    """Argv that sets its side of the network, to be ended by `down` or `up`."""

    def start(self, *words: str, cwd: Path, program: tuple = (), **variables: str) -> "Started":
        """Start a launcher, or another program, here; its output goes to one file."""
        log = cwd / f"{self.address}-{len(list(cwd.glob('*.log')))}.log"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SLURM_")},
            **{"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.card},
            **variables,
        }
        command = [*self.prefix, *(program or (sys.executable, str(NODE))), *words]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        return Started(process, log)


@dataclass(frozen=True)
class Started:
    """A launcher that runs, or has run."""

    process: subprocess.Popen
    log: Path

    def ended(self, within_s: float = 400) -> int:
        """Its exit code; it is killed if it does not end in time."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.lose_power()
            raise AssertionError(f"still running after {within_s} s:\n{self.said()}") from None

    def said(self) -> str:
        """All its output so far."""
        return self.log.read_text(errors="replace")

    def lose_power(self) -> None:
        """End everything that runs there at one moment, with no time for a word."""
        with contextlib.suppress(psutil.NoSuchProcess):
            launcher = psutil.Process(self.process.pid)
            for member in [launcher, *launcher.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        self.process.wait()


@functools.cache
def why_not_namespaces() -> str:
    """What is missing for machines with a network of their own; nothing if nothing is."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"network namespaces need {' and '.join(missing)}"
    name = f"bt{os.getpid()}"
    try:
        with _namespace(name):
            _ip("-n", name, "link", "add", "br0", "type", "bridge")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    return ""


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """So many machines on a network of their own."""
    if why_not_namespaces():
        yield [Machine("127.0.0.1")] * count
        return
    hub = f"bt{os.getpid()}-hub"
    with contextlib.ExitStack() as stack:
        stack.enter_context(_namespace(hub))
        _ip("-n", hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", hub, "link", "set", "br0", "up")
        yield [_machine(stack, hub, i) for i in range(count)]


def _machine(stack: contextlib.ExitStack, hub: str, number: int) -> Machine:
    name, cable, address = f"{hub[:-4]}-{number}", f"v{number}", f"10.77.0.{number + 1}"
    stack.enter_context(_namespace(name))
    _ip("-n", hub, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("-n", hub, "link", "set", cable, "master", "br0", "up")
    _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
    for card in ("eth0", "lo"):
        _ip("-n", name, "link", "set", card, "up")
    enter = ("nsenter", f"--net=/run/netns/{name}")
    return Machine(address, enter, "eth0", ("ip", "-n", hub, "link", "set", cable))


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[None]:
    _ip("netns", "add", name)
    try:
        yield
    finally:
        _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
