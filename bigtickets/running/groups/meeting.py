"""Where the nodes of a group meet: node 0 tells the others which port its store is on.

Fixed ports collide: two groups with their first nodes on one machine would join each other. The
port of the meeting follows from the job; if something else has it, node 0 takes the next. The
others ask each of these ports and know the right one by the answer.
"""

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from bigtickets.errors import BigticketsError, InputError
from bigtickets.running.groups.nodes import Node

# Below the range from which systems give ports to outgoing connections.
FIRST_PORT, PORTS = 20000, 10000
CANDIDATES = 16
ANSWER_S = 2.0
POLL_S = 0.5


@contextlib.contextmanager
def meeting(node: Node, wait_s: float, check_stop: Callable[[], None]) -> Iterator[int]:
    """The port of the rendezvous store, which node 0 found free and tells while this lasts."""
    if node.rank > 0:
        yield _ask(node, wait_s, check_stop)
        return
    listener, at = _listen(node)
    with listener:
        port = next((p for p in _following(at) if _is_free(p)), None)
        if port is None:
            raise InputError(f"no port after {at} is free on this machine; give --master-port")
        greeting = f"{_name(node)} {port}\n".encode()
        threading.Thread(target=_tell, args=(listener, greeting), daemon=True).start()
        try:
            yield port
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # or the thread would keep it open


def candidates(node: Node) -> list[int]:
    """Ports at which node 0 may be met, in the order in which it takes them."""
    if node.port is not None:
        return [node.port]
    start = int.from_bytes(hashlib.sha256(node.job.encode()).digest()[:4], "big")
    return [FIRST_PORT + (start + i) % PORTS for i in range(CANDIDATES)]


def _following(port: int) -> list[int]:
    return [p for p in range(port + 1, port + 1 + CANDIDATES) if p < 65536]


def _name(node: Node) -> str:
    return f"bigtickets {node.job}"


def _listen(node: Node) -> tuple[socket.socket, int]:
    for port in candidates(node):
        with contextlib.suppress(OSError):
            return _bound(port), port
        if _answer("localhost", port).rpartition(" ")[0] == _name(node):
            raise InputError(f"--job {node.job}: another group has this name; give each its own")
    ports = candidates(node)
    raise InputError(
        f"port {ports[0]} is taken on this machine; give another --master-port, on all nodes"
        if node.port is not None
        else f"ports {ports[0]} and following are taken on this machine; give --master-port"
    )


def _bound(port: int) -> socket.socket:
    """A listening socket on all addresses of both kinds; OSError if the port is taken."""
    return socket.create_server(
        ("", port),
        family=socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET,
        dualstack_ipv6=socket.has_dualstack_ipv6(),
    )


def _is_free(port: int) -> bool:
    try:
        _bound(port).close()
    except OSError:
        return False
    return True


def _tell(listener: socket.socket, greeting: bytes) -> None:
    """Answer whoever asks, until the listener is closed."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(ANSWER_S)
            connection.sendall(greeting)


def _ask(node: Node, wait_s: float, check_stop: Callable[[], None]) -> int:
    """Ask node 0 for the port of its store until it answers."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        for port in candidates(node):
            check_stop()
            name, _, told = _answer(node.first, port).rpartition(" ")
            if name == _name(node) and told.isdecimal():
                return int(told)
        time.sleep(POLL_S)
    ports = candidates(node)
    raise BigticketsError(
        f"node 0 ({node.first}) did not answer on port {ports[0]}"
        f"{f' to {ports[-1]}' if len(ports) > 1 else ''} for {wait_s:.0f} s: is it started with "
        "the same --job, and are these ports open?"
    )


def _answer(host: str, port: int) -> str:
    """What is told at a port; nothing if nobody is there, or somebody who is silent."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
            connection.settimeout(ANSWER_S)
            return connection.makefile("rb").readline(500).decode(errors="replace").strip()
    except OSError:
        return ""
