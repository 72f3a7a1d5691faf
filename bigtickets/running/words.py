"""Commands as the user may type them next."""

import shlex
from pathlib import Path


def command(*words: str | Path | None) -> str:
    """`bigtickets ...` with names quoted for a shell; words that are None are left out."""
    return shlex.join(["bigtickets", *(str(word) for word in words if word is not None)])


def run_again(study: Path, out: Path | None) -> str:
    """The `run` that goes on with a study."""
    return command("run", study, *(("--out", out) if out else ()))
