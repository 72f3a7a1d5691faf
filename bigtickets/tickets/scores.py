"""Scores: the importance of every unit of one model on one task, with its uncertainty."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from bigtickets import files
from bigtickets.errors import DamagedError, InputError
from bigtickets.study.spec import Granularity, Normalize, Unit

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Sums over examples of each unit's score and of its square: L x N per unit type."""

    sums: Mapping[Unit, Numbers]
    squares: Mapping[Unit, Numbers]
    count: int
    """Examples that were added; batches for `legacy_batch`."""
    granularity: Granularity

    def mean(self) -> dict[Unit, Numbers]:
        """Importance: the mean score over examples."""
        return {unit: sum_LN / max(self.count, 1) for unit, sum_LN in self.sums.items()}

    def standard_error(self) -> dict[Unit, Numbers]:
        """Standard error of `mean`: s / sqrt(n), with the sample's own s; NaN below 2 examples."""
        if self.count < 2:
            return {unit: np.full_like(sum_LN, np.nan) for unit, sum_LN in self.sums.items()}
        return {unit: self._error(unit, mean_LN) for unit, mean_LN in self.mean().items()}

    def _error(self, unit: Unit, mean_LN: Numbers) -> Numbers:
        spread_LN = self.squares[unit] / self.count - mean_LN**2
        return np.sqrt(np.maximum(spread_LN, 0) / (self.count - 1))

    def normalized(self, mode: Normalize) -> dict[Unit, Numbers]:
        """Means over their L2 norm: inside each layer (`layer`), over the type (`global`).

        Where a layer has a single unit, as with blocks, `layer` would make all equal: the norm is
        then over the type. What is all zero stays zero.
        """
        return {unit: mean_LN / _norm(mean_LN, mode) for unit, mean_LN in self.mean().items()}

    def stability(self, mode: Normalize) -> dict[Unit, float]:
        """How far units differ by more than chance, from 0 to 1.

        1 - mean(SE^2) / variance over units, of normalised scores: the correlation to expect with
        the scores of another sample of as many examples (the reliability of classical test
        theory). NaN below 2 examples.
        """
        errors, norms = self.standard_error(), self._norms(mode)
        return {
            unit: _reliability(mean_LN / norms[unit], errors[unit] / norms[unit])
            for unit, mean_LN in self.mean().items()
        }

    def _norms(self, mode: Normalize) -> dict[Unit, Numbers]:
        return {unit: _norm(mean_LN, mode) for unit, mean_LN in self.mean().items()}

    @property
    def digest(self) -> str:
        """Sha256 of all numbers."""
        digest = hashlib.sha256(f"{self.granularity} {self.count}".encode())
        for name, numbers_LN in sorted(self._arrays().items()):
            digest.update(f" {name} {numbers_LN.shape} ".encode())
            digest.update(np.ascontiguousarray(numbers_LN, dtype="<f8").tobytes())
        return digest.hexdigest()

    def save(self, path: Path, provenance: Mapping[str, str] | None = None) -> None:
        """Write a safetensors file, whole or not at all; `provenance` is kept in its metadata."""
        metadata = {
            **(provenance or {}),
            "count": str(self.count),
            "granularity": self.granularity,
            "digest": self.digest,
        }
        files.write_bytes(path, safetensors.numpy.save(self._arrays(), metadata))

    def _arrays(self) -> dict[str, Numbers]:
        sums = {f"{unit}.sum": sum_LN for unit, sum_LN in self.sums.items()}
        return sums | {f"{unit}.square": square_LN for unit, square_LN in self.squares.items()}


def load_scores(path: Path) -> Scores:
    """Read scores; InputError if the file is missing, DamagedError if it is not what was saved."""
    arrays, metadata = _read(path)
    try:
        found = Scores(
            {unit: arrays[f"{unit}.sum"] for unit in get_args(Unit) if f"{unit}.sum" in arrays},
            {unit: arrays[f"{unit}.square"] for unit in get_args(Unit) if f"{unit}.sum" in arrays},
            int(metadata["count"]),
            metadata["granularity"],
        )
    except (KeyError, ValueError):
        raise _damaged(path) from None
    if found.digest != metadata.get("digest"):
        raise _damaged(path)
    return found


def read_provenance(path: Path) -> dict[str, str]:
    """What `save` was given beside the scores."""
    own = ("count", "granularity", "digest")
    return {key: value for key, value in _read(path)[1].items() if key not in own}


def _read(path: Path) -> tuple[dict[str, Numbers], dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; `bigtickets score` makes one")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except safetensors.SafetensorError:
        raise _damaged(path) from None


def _damaged(path: Path) -> DamagedError:
    return DamagedError(f"{path}: damaged scores; delete the file and score again")


def _norm(mean_LN: Numbers, mode: Normalize) -> Numbers:
    """Divisors of each layer, L x 1; 1 where there is nothing to divide."""
    one_L1 = np.ones((len(mean_LN), 1))
    if mode == "none":
        return one_L1
    inside = mode == "layer" and mean_LN.shape[1] > 1
    norm_L1 = one_L1 * np.linalg.norm(mean_LN, axis=1 if inside else None, keepdims=True)
    return np.where(norm_L1 > 0, norm_L1, 1)


def _reliability(mean_LN: Numbers, error_LN: Numbers) -> float:
    spread = float(np.var(mean_LN))
    return float(np.maximum(0, 1 - np.mean(error_LN**2) / spread)) if spread else 0.0
