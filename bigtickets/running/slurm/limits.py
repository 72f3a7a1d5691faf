"""How many jobs SLURM takes: from `scontrol show config` and, where there is one, `sacctmgr`."""

import getpass
import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from bigtickets.errors import BigticketsError
from bigtickets.running.slurm.cluster import Cluster

TIMEOUT_S = 120
DEFAULT_ARRAY = 1001
"""SLURM's own default of MaxArraySize."""


@dataclass(frozen=True)
class Limits:
    """What bounds the number of jobs."""

    array: int = DEFAULT_ARRAY
    """MaxArraySize: indices go from 0 to one less."""
    submitted: int | None = None
    """Jobs that the user may have in the queue; None if nothing tells."""


def read_limits(cluster: Cluster) -> Limits:
    """The limits of this cluster; what cannot be read is left open."""
    array = max_array_size(ask(["scontrol", "show", "config"]))
    told = [cluster.max_submitted, *_accounting(cluster)]
    return Limits(array, min((n for n in told if n is not None), default=None))


def max_array_size(config: str) -> int:
    """MaxArraySize in the output of `scontrol show config`."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return int(match.group(1)) if match else DEFAULT_ARRAY


def _accounting(cluster: Cluster) -> list[int]:
    """Submit limits of the user's associations and of the QOS, as far as sacctmgr tells them."""
    if shutil.which("sacctmgr") is None:
        return []
    sacctmgr = ["sacctmgr", "--noheader", "--parsable2", "show"]
    user = f"user={getpass.getuser()}"
    try:
        rows = ask([*sacctmgr, "assoc", "where", user, "format=account,maxsubmit,defaultqos"])
        limits = ask([*sacctmgr, "qos", "format=name,maxsubmitpu,maxsubmitpa"])
    except BigticketsError:
        return []
    return submit_limits(rows, limits, cluster.account, cluster.qos)


def submit_limits(rows: str, qos: str, account: str | None, chosen: str | None) -> list[int]:
    """The numbers in lines `account|limit|default qos` and `qos|limit|limit` that apply."""
    found, used = [], {chosen} if chosen else set()
    for line in rows.splitlines():
        name, limit, default = (*line.split("|"), "", "", "")[:3]
        if account in (None, name):
            found += [limit]
            used |= set() if chosen else {default}
    for line in qos.splitlines():
        name, *limits = line.split("|")
        found += limits if name in used else []
    return [int(limit) for limit in found if limit.isdecimal()]


def ask(command: list[str]) -> str:
    """Output of a SLURM command; BigticketsError in one line if it fails."""
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            env=clean_environment(),
        )
    except FileNotFoundError:
        raise BigticketsError(
            f"{command[0]}: no such command; is this a SLURM login node?"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BigticketsError(f"{command[0]}: {error}; type the same command again") from None
    if result.returncode:
        raise BigticketsError(f"{' '.join(command[:2])}: {one_line(result.stderr)}")
    return result.stdout


def clean_environment() -> dict[str, str]:
    """The environment without what SLURM tells the job that we may be in: it is not for others."""
    return {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"SLURMD?_(?!CONF$)", name)
    }


def one_line(text: str) -> str:
    """A command's complaint as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines)[:400] or "it failed without a word"
