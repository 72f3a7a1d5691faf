"""Safetensors files written and read one tensor at a time: memory holds one of them, never all."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

Selection = tuple[Tensor | None, ...]
"""For each dimension the sorted indices that are wanted, or None for all."""

BLOCK_NUMBERS = 2**22
"""Numbers of a file that are in memory at once while a part of a tensor is read."""


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


def read_tensor(path: Path, key: str, dims: Selection = ()) -> Tensor:
    """A tensor of a file as float32, or the part of it that `dims` selects.

    Opened anew for each: pages of a mapped file count as this process's memory until it is closed.
    """
    with safe_open(path, framework="pt") as file:
        source = file.get_slice(key)
        shape = source.get_shape()
        if not shape:
            return file.get_tensor(key).float()
        dims = (*dims, *[None] * (len(shape) - len(dims)))
        sizes = [n if stay is None else len(stay) for n, stay in zip(shape, dims, strict=True)]
        result = torch.empty(sizes)
        rows = torch.arange(shape[0]) if dims[0] is None else dims[0]
        step = max(1, BLOCK_NUMBERS // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], step):
            first, last = torch.searchsorted(rows, torch.tensor([start, start + step])).tolist()
            if first < last:
                block = source[start : min(start + step, shape[0])]
                result[first:last] = _selected(block, (rows[first:last] - start, *dims[1:]))
        return result


def _selected(block: Tensor, dims: Selection) -> Tensor:
    for dim, stay in enumerate(dims):
        if stay is not None and len(stay) != block.shape[dim]:
            block = block.index_select(dim, stay)
    return block
