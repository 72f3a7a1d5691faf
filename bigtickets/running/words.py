"""Commands as the user may type them next."""

import shlex
from pathlib import Path

from bigtickets.study.folder import RunFolder


def command(*words: str | Path | None) -> str:
    """`bigtickets ...` with names quoted for a shell; words that are None are left out."""
    return shlex.join(["bigtickets", *(str(word) for word in words if word is not None)])


def go_on(folder: RunFolder) -> str:
    """The command that goes on with a run: `submit` where SLURM had it, else `run`."""
    cluster = folder.slurm / "cluster.yaml"
    if not cluster.is_file():
        return run_again(folder.study_yaml, folder.root)
    return command("submit", folder.study_yaml, "--cluster", cluster, "--out", folder.root)


def run_again(study: Path, out: Path | None) -> str:
    """The `run` that goes on with a study."""
    return command("run", study, *(("--out", out) if out else ()))
