"""Hostfiles in DeepSpeed's format: a line `HOST slots=N` per machine."""

import re
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from bigtickets.errors import InputError


@dataclass(frozen=True)
class Host:
    """One line of a hostfile."""

    name: str
    slots: int
    """Ranks that run there."""


def read_hostfile(path: Path) -> list[Host]:
    """The hosts in the order of the file; empty lines and comments (#) do not count."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--hostfile: {path}: {error}") from None
    hosts: list[Host] = []
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        found = re.fullmatch(r"(\S+)\s+slots=([1-9]\d*)", text)
        if found is None:
            raise InputError(f"{path}, line {number}: {text!r}; expected `HOST slots=N`")
        if found[1] in [host.name for host in hosts]:
            raise InputError(f"{path}, line {number}: {found[1]} stands twice; add up its slots")
        hosts.append(Host(found[1], int(found[2])))
    if not hosts:
        raise InputError(f"{path}: names no host; expected lines `HOST slots=N`")
    return hosts


def own_line(path: Path, hosts: list[Host]) -> int:
    """Which of the hosts this machine is, by name or by address; InputError if none or several."""
    short = socket.gethostname().split(".")[0]
    names = {socket.gethostname(), socket.getfqdn(), short} | own_addresses()
    found = [i for i, host in enumerate(hosts) if host.name in names or _here(host.name)]
    if len(found) != 1:
        what = "none of its hosts is" if not found else "several of its hosts are"
        raise InputError(f"{path}: {what} this machine ({short}); give --node-rank")
    return found[0]


def own_addresses() -> set[str]:
    """The addresses of this machine's network interfaces."""
    cards = psutil.net_if_addrs().values()
    return {address.address.split("%")[0] for card in cards for address in card}


def _here(name: str) -> bool:
    """Whether a name leads to an address of this machine."""
    try:
        found = socket.getaddrinfo(name, None)
    except OSError:
        return False
    return bool({str(entry[4][0]) for entry in found} & own_addresses())
