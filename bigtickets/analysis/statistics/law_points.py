"""What a law is fitted to: one quantity of many results, each at its amount."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bigtickets.analysis.statistics.estimates import Estimate
from bigtickets.analysis.statistics.gain import Gain
from bigtickets.analysis.statistics.transition import Transition
from bigtickets.errors import InputError

What = Literal["gain", "collapse_sd", "collapse_point", "sharpness"]
Place = tuple[str, float, str]
"""Setting, amount and block of a result."""


@dataclass(frozen=True)
class Predictor:
    """What a law is over, in words. Every setting has one amount and is measured in all blocks."""

    amounts: str
    """What has a logarithm, in the plural."""
    settings: str
    """What has an amount."""
    block: str
    """What is measured at every amount: the random effect."""

    @property
    def blocks(self) -> str:
        """The plural."""
        return f"{self.block}s"


SIZE = Predictor(amounts="sizes", settings="models", block="task")
DATA = Predictor(amounts="amounts of data", settings="shares of the data", block="model")


@dataclass(frozen=True)
class LawPoint:
    """One quantity of one setting in one block: of one model on one task."""

    setting: str
    """The model; or the share of the data."""
    amount: float
    """Parameters; or training examples."""
    block: str
    """The task; or the model."""
    value: float | None
    standard_error: float | None = None
    df: float | None = None
    """Degrees of freedom of the standard error."""
    reason: str | None = None
    """Why there is no value."""


def by_size(result: Gain | Transition) -> Place:
    """Where a result stands in a law over model sizes."""
    return result.model, result.parameters, result.task


def points_of(
    results: Sequence[Gain | Transition],
    what: What,
    place: Callable[[Gain | Transition], Place] = by_size,
) -> list[LawPoint]:
    """The quantity of each result: de-biased gain, collapse point (x), or 1 / logistic width."""
    if what not in get_args(What):
        raise InputError(f"{what!r}: not one of {', '.join(get_args(What))}")
    return [_point(result, what, place(result)) for result in results]


def _point(result: Gain | Transition, what: What, place: Place) -> LawPoint:
    estimate = _estimate(result, what)
    value, error = estimate.value, estimate.standard_error
    reason = None if value is not None else estimate.reason
    if what in ("collapse_sd", "collapse_point") and estimate.high is None:
        value, reason = None, estimate.reason or "the collapse is not sure"
    if what == "sharpness" and value is not None:
        value, error = (1 / value, None) if value > 0 else (None, None)
    return LawPoint(*place, value, error, estimate.df, reason)


def _estimate(result: Gain | Transition, what: What) -> Estimate:
    if isinstance(result, Gain):
        wanted = result.debiased if what == "gain" else None
    else:
        wanted = {
            "collapse_sd": result.collapse_sd,
            "collapse_point": result.collapse_point,
            "sharpness": result.logistic.width,
        }.get(what)
    if wanted is None:
        raise InputError(f"{what}: not a quantity of {type(result).__name__}")
    return wanted
