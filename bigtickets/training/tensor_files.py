"""Safetensors files written and read one tensor at a time: memory holds one of them, never all."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from bigtickets.errors import DamagedError, InputError
from bigtickets.study.fingerprint import safetensors_header

Selection = tuple[Tensor | None, ...]
"""For each dimension the sorted indices that are wanted, or None for all."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
BLOCK_NUMBERS = 2**22
"""Numbers of a file that are in memory at once while a part of a tensor is read."""


@dataclass(frozen=True)
class Place:
    """Where a tensor is in a file."""

    path: Path
    key: str
    """Its name there."""
    dtype: str
    """As the format calls it."""
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte."""


@dataclass(frozen=True)
class Stream:
    """Float32 tensors that come one after the other."""

    shapes: dict[str, tuple[int, ...]]
    """All names, in the order in which they come."""
    tensors: Iterator[tuple[str, Tensor]]

    def drain(self) -> None:
        """Take and drop all: on the ranks that only help to gather them."""
        for _ in self.tensors:
            pass


def stream(tensors: Mapping[str, Tensor]) -> Stream:
    """Tensors that are in memory anyway."""
    return Stream({name: tuple(t.shape) for name, t in tensors.items()}, iter(tensors.items()))


def write_stream(path: Path, source: Stream) -> None:
    """Write a safetensors file; the library's own writer wants all tensors at once."""
    header, end = {}, 0
    for name, shape in source.shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, tensor), expected in zip(source.tensors, source.shapes.items(), strict=True):
            if (name, tuple(tensor.shape)) != expected:
                raise ValueError(f"{name} {tuple(tensor.shape)} came in the place of {expected}")
            flat = tensor.detach().to("cpu", torch.float32).contiguous().view(-1)
            file.write(flat.numpy().tobytes())


def places_in(path: Path) -> dict[str, Place]:
    """By name, where each tensor of a safetensors file is; DamagedError if it is no whole one."""
    header, data = safetensors_header(path)
    return {
        name: Place(path, name, v["dtype"], tuple(v["shape"]), data + v["data_offsets"][0])
        for name, v in header.items()
    }


def read_tensor(place: Place, dims: Selection = ()) -> Tensor:
    """A tensor as float32, or the part of it that `dims` selects; memory holds a block besides.

    Read, not mapped: a mapped file's pages count as this process's memory.
    """
    shape = place.shape or (1,)
    dims = (*dims, *[None] * (len(shape) - len(dims)))
    sizes = [n if stay is None else len(stay) for n, stay in zip(shape, dims, strict=True)]
    result = torch.empty(sizes)
    rows = torch.arange(shape[0]) if dims[0] is None else dims[0]
    step = max(1, BLOCK_NUMBERS // max(1, math.prod(shape[1:])))
    with place.path.open("rb") as file:
        for start in range(0, shape[0] if result.numel() else 0, step):
            stop = min(start + step, shape[0])
            first, last = torch.searchsorted(rows, torch.tensor([start, stop])).tolist()
            if first < last:
                block = _read_rows(file, place, start, stop)
                result[first:last] = select(block, (rows[first:last] - start, *dims[1:]))
    return result.view(place.shape) if not place.shape else result


def _read_rows(file: BinaryIO, place: Place, start: int, stop: int) -> Tensor:
    if place.dtype not in DTYPES:
        raise InputError(f"{place.path}: {place.key} is {place.dtype}; known: {', '.join(DTYPES)}")
    dtype, width = DTYPES[place.dtype], math.prod(place.shape[1:])
    data = bytearray((stop - start) * width * dtype.itemsize)
    file.seek(place.start + start * width * dtype.itemsize)
    if file.readinto(data) != len(data):  # type: ignore[attr-defined]
        raise DamagedError(f"{place.path}: cut short; fetch or save the file again")
    return torch.frombuffer(data, dtype=dtype).view(stop - start, *place.shape[1:])


def select(block: Tensor, dims: Selection) -> Tensor:
    """The part of a tensor in memory that `dims` selects."""
    for dim, stay in enumerate(dims):
        if stay is not None and len(stay) != block.shape[dim]:
            block = block.index_select(dim, stay)
    return block
