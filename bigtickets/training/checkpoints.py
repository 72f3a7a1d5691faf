"""Checkpoints that are there whole or not at all.

`work/<id>/attempt-N/checkpoints/step-00000120/` holds `state.safetensors` (weights and moments by
name), `state.json` (counters) and `manifest.json` (size and digest of both). It is written under a
temporary name, fsynced and renamed; then `work/<id>/latest.json` names it. DeepSpeed's own way
writes straight to final names and treats a missing pointer as a fresh start.
"""

import functools
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bigtickets.errors import BigticketsError, DamagedError
from bigtickets.files import fsync, read_json, sha256_file, write_json
from bigtickets.training.tensor_files import Place, Stream, places_in, read_tensor, write_stream

KEEP = 2
STATE, COUNTERS, MANIFEST = "state.safetensors", "state.json", "manifest.json"
NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    path: Path
    step: int
    """Optimizer steps done."""
    counters: dict[str, Any]

    def tensor(self, name: str) -> Tensor:
        """One weight or moment."""
        return read_tensor(self._places[name])

    @functools.cached_property
    def _places(self) -> dict[str, Place]:
        return places_in(self.path / STATE)


def save(attempt: Path, step: int, state: Stream, counters: dict[str, Any]) -> None:
    """Commit a checkpoint of `attempt` after `step` steps; of it and earlier attempts two stay."""
    folder = attempt / "checkpoints"
    final = folder / f"step-{step:08d}"
    temporary = folder / f"{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_stream(temporary / STATE, state)
    write_json(temporary / COUNTERS, counters)
    fsync(temporary / STATE)
    manifest = {name: _facts(temporary / name) for name in (STATE, COUNTERS)}
    write_json(temporary / MANIFEST, manifest)
    fsync(temporary)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(temporary, final)
    fsync(folder)
    write_json(attempt.parent / "latest.json", {"attempt": attempt.name, "step": step})
    for old in _of_attempts(attempt.parent, _number(attempt))[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def newest(work: Path) -> Checkpoint | None:
    """The newest checkpoint of any attempt that verifies; None where there never was one.

    Raises DamagedError if there were checkpoints and none verifies: starting over without a
    word would hide it.
    """
    paths = _of_attempts(work)
    for path in paths:
        if checkpoint := _verified(path):
            if path != paths[0]:
                print(f"{paths[0]} is damaged; going on from {path.name}", file=sys.stderr)
            return checkpoint
    if paths or (work / "latest.json").exists():
        raise DamagedError(
            f"{work}: checkpoints were written and none is whole; "
            "delete the folder to start this trial again"
        )
    return None


def _verified(path: Path) -> Checkpoint | None:
    try:
        manifest = read_json(path / MANIFEST)
        if any(manifest[name] != _facts(path / name) for name in (STATE, COUNTERS)):
            return None
        return Checkpoint(path, _step(path), read_json(path / COUNTERS))
    except (OSError, KeyError, TypeError, BigticketsError):
        return None


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _of_attempts(work: Path, last: int | None = None) -> list[Path]:
    """Committed checkpoints of all attempts (up to number `last`), most steps first."""
    folders = [p for p in work.glob("attempt-*") if last is None or _number(p) <= last]
    paths = [p for f in folders for p in (f / "checkpoints").glob("step-*") if _step(p) >= 0]
    return sorted(paths, key=lambda p: (_step(p), _number(p.parent.parent)), reverse=True)


def _step(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def _number(attempt: Path) -> int:
    return int(attempt.name.rpartition("-")[2])
