"""Where a result comes from: versions, commit, host. No secrets: no environment, no arguments."""

import functools
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bigtickets

PACKAGES = (
    "torch",
    "deepspeed",
    "transformers",
    "tokenizers",
    "datasets",
    "evaluate",
    "safetensors",
    "numpy",
    "scipy",
)
SOURCE = Path(bigtickets.__file__).parent.parent


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"bigtickets": bigtickets.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


@functools.cache
def commit() -> dict[str, Any] | None:
    """Commit of the source tree and whether it was changed; None outside a git checkout."""
    if not (SOURCE / ".git").exists():
        return None
    head = _git("rev-parse", "HEAD")
    return {"id": head, "dirty": bool(_git("status", "--porcelain"))} if head else None


def environment() -> dict[str, Any]:
    """What environment.json holds: versions, commit with its difference, machine."""
    return {
        "versions": versions(),
        "commit": commit(),
        "diff": _git("diff", "HEAD") if commit() else None,
        "platform": platform.platform(),
        "host": socket.gethostname(),
    }


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
