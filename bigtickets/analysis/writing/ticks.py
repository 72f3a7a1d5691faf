"""Where ticks, labels and squares go, and what a legend can show."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def legend_label(text: str) -> str:
    """A legend leaves out what begins with an underscore."""
    return f" {text}" if text.startswith("_") else text


def some(ticks: NDArray, most: int = 8) -> list[int]:
    """At most `most` of the ticks, evenly spaced, with the first."""
    return [int(tick) for tick in ticks[:: -(-len(ticks) // most)]]


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights of labels pushed apart to `gap`, in their order, as little as need be."""
    order = np.argsort(heights)[::-1]
    placed = np.array(heights, float)
    for above, below in pairwise(order):
        placed[below] = min(placed[below], placed[above] - gap)
    lowest = placed.min() if len(placed) else 0.0
    return list(placed - min(lowest, 0.0))


def rectangles(mask_LN: NDArray[np.bool_], fine: int = 600) -> NDArray[np.float64]:
    """Corners (5 per rectangle, x and y) around the true cells of a layers x units grid.

    A square with a gap around it per cell; in grids of more than `fine` cells neighbours in a
    row are one rectangle, so that large models stay small files.
    """
    large = mask_LN.size > fine
    joined = mask_LN if large else np.zeros_like(mask_LN)
    row, first = np.nonzero(mask_LN & ~np.pad(joined, ((0, 0), (1, 0)))[:, :-1])
    last = np.nonzero(mask_LN & ~np.pad(joined, ((0, 0), (0, 1)))[:, 1:])[1]
    half = 0.5 if large else 0.42
    left, right, top, bottom = first - half, last + half, row - half, row + half
    x = np.stack([left, right, right, left, left], axis=-1)
    y = np.stack([top, top, bottom, bottom, top], axis=-1)
    return np.stack([x, y], axis=-1).reshape(-1, 2)
