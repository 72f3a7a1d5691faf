"""Which units the winning tickets keep, per level: from the ticket files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bigtickets.analysis.statistics.estimates import Array
from bigtickets.errors import DamagedError
from bigtickets.files import read_json
from bigtickets.study.folder import RunFolder

Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class KeptLevel:
    """One unit type of the tickets of one level."""

    ratio: float
    x: float
    """Fraction of the prunable encoder weights that these tickets remove, mean."""
    share_LN: Array
    """Share of the tickets that keep the unit, layers x units."""
    tickets: int


def read_masks(folder: RunFolder, trials: pd.DataFrame) -> dict[str, Masks]:
    """Masks by ticket id of the tickets that these trials trained; a missing file is left out."""
    paths = {ticket: folder.ticket(ticket) for ticket in trials["ticket"].dropna().unique()}
    return {ticket: masks_of(read_json(p), str(p)) for ticket, p in paths.items() if p.is_file()}


def masks_of(ticket: Mapping[str, Any], source: str) -> Masks:
    """Boolean masks, layers x units per type, of a ticket file's content."""
    try:
        masks = {}
        for unit, layers in ticket["kept"].items():
            masks[unit] = np.zeros((len(layers), ticket["total"][unit] // len(layers)), np.bool_)
            for mask_N, indices in zip(masks[unit], layers, strict=True):
                mask_N[np.array(indices, dtype=np.int64)] = True
        return masks
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
        raise DamagedError(
            f"{source}: damaged ticket; delete the file to have it cut anew"
        ) from None


def kept_levels(trials: pd.DataFrame, masks: Mapping[str, Masks], unit: str) -> list[KeptLevel]:
    """Levels of one kind in one cell, least pruned first; none without tickets of that type."""
    levels = []
    for ratio, rows in trials.groupby("ratio"):
        ids = [t for t in rows["ticket"].dropna().unique() if unit in masks.get(t, {})]
        if ids:
            share_LN = np.mean([masks[ticket][unit] for ticket in ids], axis=0)
            x = float(rows["x"].mean())
            levels.append(KeptLevel(float(str(ratio)), x, share_LN, len(ids)))
    return levels
