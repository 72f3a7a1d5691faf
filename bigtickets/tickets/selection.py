"""Which units a ticket removes: exact counts, ties by index, nested over ratios.

Every kind is an order of removal that doesn't depend on the ratio, cut where the ratio says; so
what a small ratio removes, every larger one removes too. numpy only; nothing is drawn from a
stream whose values may change with numpy's release.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from bigtickets.errors import InputError
from bigtickets.study.spec import Kind, TicketsSpec, Unit, exact

Numbers = NDArray[np.float64] | NDArray[np.uint64]
Order = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Selection:
    """The units that stay, and how many were to go."""

    kept: dict[Unit, NDArray[np.bool_]]
    """L x N per unit type."""
    asked: dict[Unit, int]
    """Units that the ratio alone would remove; floors may let fewer go."""


def select(
    scores_LN: Mapping[Unit, Numbers],
    weights: Mapping[Unit, int],
    spec: TicketsSpec,
    kind: Kind,
    ratio: float,
    seed: int,
) -> Selection:
    """Choose the units of one ticket.

    scores_LN: normalised, L x N for each of `spec.units`. weights: of one unit, per type. ratio:
    share of the prunable weights to remove. seed: read by the random kinds. InputError if a score
    is not a finite number.

    The floors `min_heads` and `min_neurons` protect those units of each layer that the kind would
    remove last.
    """
    scores_LN = {unit: _finite(unit, scores_LN[unit]) for unit in spec.units}
    if kind in ("random", "random_layerwise"):
        winning = select(scores_LN, weights, spec, "winning", ratio, seed)
        kept = {
            unit: _random(unit, winning.kept[unit], _floor(spec, unit), seed, kind)
            for unit in spec.units
        }
        return Selection(kept, winning.asked)
    worth_LN = {unit: -each if kind == "losing" else each for unit, each in scores_LN.items()}
    count = _counts_joint if spec.budget == "joint" else _counts_per_type
    orders = {unit: _order(worth_LN[unit], 0) for unit in spec.units}
    floored = {unit: _order(worth_LN[unit], _floor(spec, unit)) for unit in spec.units}
    removed = count(worth_LN, floored, weights, ratio)
    kept = {unit: _cut(worth_LN[unit].shape, floored[unit], removed[unit]) for unit in spec.units}
    return Selection(kept, count(worth_LN, orders, weights, ratio))


def _counts_per_type(
    worth_LN: Mapping[Unit, Numbers],
    orders: Mapping[Unit, Order],
    weights: Mapping[Unit, int],
    ratio: float,
) -> dict[Unit, int]:
    """The whole number nearest to ratio x units of each type, halves up; no more than may go."""
    return {
        unit: min(floor(exact(ratio) * worth_LN[unit].size + exact(0.5)), len(order))
        for unit, order in orders.items()
    }


def _counts_joint(
    worth_LN: Mapping[Unit, Numbers],
    orders: Mapping[Unit, Order],
    weights: Mapping[Unit, int],
    ratio: float,
) -> dict[Unit, int]:
    """One ranking of all types by score per weight: its longest start that the ratio pays for."""
    units = list(orders)
    limit = floor(exact(ratio) * sum(worth_LN[unit].size * weights[unit] for unit in units))
    price = np.concatenate([worth_LN[unit].flat[orders[unit]] / weights[unit] for unit in units])
    types = np.repeat(np.arange(len(units)), [len(orders[unit]) for unit in units])
    types = types[np.argsort(price, kind="stable")]
    cost = np.cumsum(np.array([weights[unit] for unit in units])[types])
    types = types[: np.searchsorted(cost, limit, side="right")]
    return {unit: int((types == index).sum()) for index, unit in enumerate(units)}


def _order(worth_LN: Numbers, keep: int) -> Order:
    """Flat indices from first to last to go; the last `keep` of every layer are left out.

    Equal units go in the order of their index: lower layers first.
    """
    order = np.argsort(worth_LN, axis=None, kind="stable")
    # Place of each unit in its layer's own order.
    place_LN = np.argsort(np.argsort(worth_LN, axis=1, kind="stable"), axis=1, kind="stable")
    may_go = place_LN.flat[order] < worth_LN.shape[1] - keep
    return order[may_go]


def _random(
    unit: Unit, winning_LN: NDArray[np.bool_], keep: int, seed: int, kind: Kind
) -> NDArray[np.bool_]:
    """As many units at random as `winning_LN` removes: in all, or in each layer."""
    keys_LN = _keys(seed, unit, winning_LN.size).reshape(winning_LN.shape)
    if kind == "random":
        return _cut(winning_LN.shape, _order(keys_LN, keep), int((~winning_LN).sum()))
    place_LN = np.argsort(np.argsort(keys_LN, axis=1), axis=1)
    return place_LN >= (~winning_LN).sum(1, keepdims=True)


def _keys(seed: int, unit: Unit, size: int) -> NDArray[np.uint64]:
    """Random numbers to sort by; numpy guarantees a bit generator's raw output for good."""
    digest = hashlib.sha256(f"{seed}/{unit}".encode()).digest()
    return np.random.PCG64(int.from_bytes(digest)).random_raw(size)


def _cut(shape: tuple[int, ...], order: Order, removed: int) -> NDArray[np.bool_]:
    kept = np.ones(shape, dtype=np.bool_)
    kept.flat[order[:removed]] = False
    return kept


def _floor(spec: TicketsSpec, unit: Unit) -> int:
    return {"heads": spec.min_heads, "neurons": spec.min_neurons, "blocks": 0}[unit]


def _finite(unit: Unit, scores_LN: Numbers) -> Numbers:
    if not np.isfinite(scores_LN).all():
        raise InputError(
            f"scores of {unit} are not finite: the scored model has diverged; "
            "lower training.learning_rate or leave this task out"
        )
    return scores_LN
