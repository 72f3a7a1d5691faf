"""A ticket: which units of one model stay, what that removes, and where it comes from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigtickets.errors import DamagedError, InputError
from bigtickets.study.spec import Kind, TicketsSpec, Unit
from bigtickets.tickets.families import (
    Masks,
    Shapes,
    forward_flops,
    prunable_weights,
    units_per_layer,
    weights_per_unit,
)
from bigtickets.tickets.selection import select


@dataclass(frozen=True, eq=False)
class Ticket:
    """Which units stay. Types without a key in `kept` stay whole."""

    kept: Masks
    """Boolean, L x N per unit type (blocks: L x 1)."""
    kind: str
    ratio: float
    """Share of the prunable weights that was to go; `fractions` says what did."""
    seed: int | None
    """Of the random kinds; None where no seed was read."""
    asked: Mapping[Unit, int]
    """Units that the ratio alone would remove; the floors may have let fewer go."""
    fractions: Mapping[str, float]
    """Removed shares of `encoder` (prunable weights), `model` (all parameters of the dense model
    with its task head) and `flops` (the layers' forward at `length` tokens)."""
    length: int
    """Tokens per example at which `flops` is stated."""
    provenance: Mapping[str, Any]
    """Where it comes from: model, task, scores."""

    @property
    def hash(self) -> str:
        """Sha256 of which units stay, and nothing else: the same for a winning ticket's reinit."""
        content = json.dumps(structure(self.kept), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def total(self) -> dict[Unit, int]:
        """Units of the dense model, per type."""
        return {unit: int(mask_LN.size) for unit, mask_LN in self.kept.items()}

    @property
    def removed(self) -> dict[Unit, int]:
        """Units that go, per type."""
        return {unit: int((~mask_LN).sum()) for unit, mask_LN in self.kept.items()}

    def to_json(self) -> dict[str, Any]:
        """As JSON values: unit lists, exact counts, fractions, provenance and own hash."""
        return {
            "hash": self.hash,
            "kind": self.kind,
            "ratio": self.ratio,
            "seed": self.seed,
            "asked": dict(self.asked),
            "fractions": dict(self.fractions),
            "length": self.length,
            "provenance": dict(self.provenance),
            **structure(self.kept),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: str = "ticket") -> "Ticket":
        """The ticket that `to_json` wrote; other keys are ignored.

        DamagedError, naming `source`, if something is missing or the hash or counts don't agree.
        """
        own = ("kind", "ratio", "seed", "asked", "fractions", "length", "provenance")
        try:
            kept = _masks(value)
            ticket = cls(kept=kept, **{key: value[key] for key in own})
            whole = value["hash"] == ticket.hash
            whole &= all(value[key] == same for key, same in structure(kept).items())
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError):
            whole = False
        if not whole:
            raise DamagedError(f"{source}: damaged ticket; delete the file to have it cut anew")
        return ticket


def cut_ticket(
    scores_LN: Mapping[Unit, NDArray[np.float64]],
    shapes: Shapes,
    spec: TicketsSpec,
    kind: Kind,
    ratio: float,
    seed: int,
    *,
    parameters: int,
    length: int,
    provenance: Mapping[str, Any],
) -> Ticket:
    """Select the units of one ticket and count what it removes.

    scores_LN: normalised. parameters: of the whole dense model. length: tokens per example at
    which FLOPs are stated. Ratio 0 gives the ticket that keeps all. See `selection.select`.
    """
    each = weights_per_unit(shapes)
    selection = select(scores_LN, each, spec, kind, ratio, seed)
    check_kept(selection.kept, shapes)
    return Ticket(
        kept=selection.kept,
        kind=kind,
        ratio=ratio,
        seed=seed if kind in ("random", "random_layerwise") else None,
        asked=selection.asked,
        fractions=removed_fractions(selection.kept, shapes, parameters, length),
        length=length,
        provenance=provenance,
    )


def removed_fractions(
    kept: Masks, shapes: Shapes, parameters: int, length: int
) -> dict[str, float]:
    """What a ticket removes of the prunable weights, of all parameters, and of forward FLOPs."""
    each = weights_per_unit(shapes)
    weights = sum(each[unit] * int((~mask_LN).sum()) for unit, mask_LN in kept.items())
    flops = forward_flops(shapes, length)
    emptied = int((~kept["heads"].any(axis=1)).sum()) if "heads" in kept else 0
    return {
        "encoder": weights / prunable_weights(shapes, kept),
        "model": (weights + emptied * shapes.last_head_weights) / parameters,
        "flops": (flops - forward_flops(shapes, length, kept)) / flops,
    }


def check_kept(kept: Masks, shapes: Shapes) -> None:
    """InputError unless the masks fit a model of these sizes."""
    both = {"neurons", "blocks"} <= set(kept)
    if not kept or both or not set(kept) <= {"heads", "neurons", "blocks"}:
        raise InputError("a ticket removes heads, and neurons or blocks, not both of these")
    for unit, mask_LN in kept.items():
        expected = (shapes.layers, units_per_layer(shapes, unit))
        if mask_LN.shape != expected:
            raise InputError(
                f"the ticket has {unit} {_sizes(mask_LN.shape)}, the model {_sizes(expected)}; "
                "it was cut for another model"
            )


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape) + " (layers x units)"


def structure(kept: Masks) -> dict[str, Any]:
    """Masks as JSON values: exact counts, and the indices of the units that stay in each layer."""
    return {
        "removed": {unit: int((~mask_LN).sum()) for unit, mask_LN in kept.items()},
        "total": {unit: int(mask_LN.size) for unit, mask_LN in kept.items()},
        "kept": {
            unit: [np.flatnonzero(mask_N).tolist() for mask_N in mask_LN]
            for unit, mask_LN in kept.items()
        },
    }


def _masks(value: Mapping[str, Any]) -> dict[Unit, NDArray[np.bool_]]:
    """What `structure` wrote as masks."""
    masks = {}
    for unit, layers in value["kept"].items():
        masks[unit] = np.zeros((len(layers), value["total"][unit] // len(layers)), np.bool_)
        for mask_N, indices in zip(masks[unit], layers, strict=True):
            mask_N[np.array(indices, dtype=np.int64)] = True
    return masks
