"""Numbers with their intervals as table cells."""

from collections.abc import Callable
from typing import Any

from bigtickets.analysis.statistics.estimates import Estimate
from bigtickets.analysis.writing.words import DASH, NOT_HAD, cell_name, percent, points

YES = {True: "yes", False: "no"}
CELL_HEADER = "Model and task"


def estimated(estimate: Estimate, shown: Callable[..., str]) -> list[str]:
    """Two cells: the value, and its interval or why there is none."""
    if estimate.value is None:
        return [DASH, f"{NOT_HAD}: {estimate.reason}" if estimate.reason else NOT_HAD]
    low, high = estimate.low, estimate.high
    if low is None and high is None:
        return [shown(estimate.value), estimate.reason or "no interval"]
    if high is None:
        return [shown(estimate.value), f"{shown(low)} or more"]
    if low is None:
        return [shown(estimate.value), f"{shown(high)} or less"]
    return [shown(estimate.value), f"{shown(low)} to {shown(high)}"]


def signed(value: float | None) -> str:
    """A difference in points."""
    return points(value, signed=True)


def in_units(value: float | None) -> str:
    """A difference in the quantity's own units."""
    return points(None if value is None else value / 100, signed=True, digits=3)


def share(value: float | None) -> str:
    """A fraction in whole per cent."""
    return percent(value, 0)


def plain(value: float | None) -> str:
    """A number with two digits."""
    return DASH if value is None else f"{value:.2f}".replace("-", "−")


def named_cell(one: Any) -> str:
    """The model and task of a result."""
    return cell_name(one.model, one.task, one.data_fraction)
