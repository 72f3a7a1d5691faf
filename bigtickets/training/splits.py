"""Tokenised splits: how they are read, and which part of one is trained on."""

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from bigtickets.errors import DamagedError, InputError
from bigtickets.files import read_json
from bigtickets.study.spec import exact

RECORD = "record.json"
REGRESSION_BINS = 10


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one split, tokenised, not padded."""

    name: str
    """As the source calls it: `validation_matched`."""
    input_ids: torch.Tensor
    """int32, the tokens of all examples end to end."""
    offsets: torch.Tensor
    """int64, N + 1: example i has the tokens offsets[i] to offsets[i + 1]."""
    token_type_ids: torch.Tensor | None
    """int8, beside `input_ids`; None if the model's tokenizer has none."""
    labels: torch.Tensor
    """int64 classes or float32 numbers, N."""
    pad_id: int
    outputs: int
    """Classes, or 1 for regression."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def regression(self) -> bool:
        """Whether labels are numbers."""
        return self.labels.is_floating_point()

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64, on the CPU wherever the split lies."""
        lengths: np.ndarray = np.diff(self.offsets.cpu().numpy())
        return lengths

    def to(self, device: torch.device | str) -> "Split":
        """The split on another device; batches of it are then put together there."""
        types = self.token_type_ids
        return dataclasses.replace(
            self,
            input_ids=self.input_ids.to(device),
            offsets=self.offsets.to(device),
            token_type_ids=None if types is None else types.to(device),
            labels=self.labels.to(device),
        )


def load_record(folder: Path) -> dict[str, Any]:
    """What `prepare` wrote about the splits in `folder`."""
    record: dict[str, Any] = read_json(folder / RECORD)
    return record


def evaluation_names(record: dict[str, Any]) -> list[str]:
    """`validation`, and `validation_1` where there are two evaluation splits."""
    return [name for name in record["splits"] if name != "train"]


def load_split(folder: Path, split: str) -> Split:
    """Read `train`, `validation` or `validation_1`; DamagedError if the file isn't as written."""
    record = load_record(folder)
    facts, path = record["splits"][split], folder / f"{split}.safetensors"
    tensors = _verified(path, facts["sha256"])
    return Split(
        name=facts["name"],
        input_ids=tensors["input_ids"],
        offsets=tensors["offsets"],
        token_type_ids=tensors.get("token_type_ids"),
        labels=tensors["labels"],
        pad_id=record["tokenizer"]["pad_id"],
        outputs=record["outputs"],
    )


def subset(
    labels: torch.Tensor | np.ndarray, *, fraction: float | None = None, count: int | None = None
) -> np.ndarray:
    """Sorted indices (int64) of a class-stratified part of a split; the same at every call.

    Parts are nested: a larger one holds every smaller one. Classes are apportioned by Webster's
    method (which is the largest remainder's result for two classes, but, unlike it, nested for
    more), and each has one example at least. Numbers are stratified by ten quantile bins.
    """
    labels = np.asarray(labels)
    strata = _strata(labels)
    size_K = np.bincount(strata)
    wanted = _wanted(len(strata), fraction, count)
    least = 1 if np.issubdtype(labels.dtype, np.floating) else len(size_K)
    if count is not None and wanted < least:
        raise InputError(f"{count} examples are too few for {least} classes; ask for more")
    order = _stratified_order(strata, size_K)
    chosen: np.ndarray = np.sort(order[: max(wanted, least)])
    return chosen


def _verified(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{path}: missing; delete its folder and run again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedError(
            f"{path}: not as it was written (checksum); delete its folder and run again"
        )
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(data)
    except SafetensorError as error:
        raise DamagedError(f"{path}: {error}; delete its folder and run again") from None
    return tensors


def _wanted(examples: int, fraction: float | None, count: int | None) -> int:
    if (fraction is None) == (count is None):
        raise TypeError("give either fraction or count")
    if count is not None:
        return min(count, examples)
    assert fraction is not None
    if not 0 < fraction <= 1:
        raise InputError(f"a data fraction is above 0 and at most 1, got {fraction}")
    # Half up, of the decimal number that was written: 0.15 of 10 is 2 examples.
    return int(exact(fraction) * examples + exact(0.5))


def _strata(labels: np.ndarray) -> np.ndarray:
    """Class per example from 0 without gaps; of numbers, the tenth that they fall into."""
    if np.issubdtype(labels.dtype, np.floating):
        bins = min(REGRESSION_BINS, max(1, len(labels) // REGRESSION_BINS))
        rank = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
        return rank * bins // len(labels)
    classes: np.ndarray = np.unique(labels, return_inverse=True)[1]
    return classes


def _stratified_order(strata: np.ndarray, size_K: np.ndarray) -> np.ndarray:
    """All examples in an order whose every beginning is stratified.

    Example j of a class of size n stands at (j + 1/2) / n: Webster's divisors. The first of each
    class come first of all. Which example is the j-th is a fixed shuffle: files may be sorted.
    """
    shuffled = np.argsort(np.random.PCG64(0).random_raw(len(strata)), kind="stable")
    by_class = shuffled[np.argsort(strata[shuffled], kind="stable")]
    starts = np.cumsum(size_K) - size_K
    j = np.arange(len(strata)) - np.repeat(starts, size_K)
    key = np.where(j == 0, 0.0, (j + 0.5) / np.repeat(size_K, size_K))
    order: np.ndarray = by_class[np.argsort(key, kind="stable")]
    return order
