"""How gain, collapse point and sharpness change with the size of the model, or the amount of data.

Two amounts are a difference and not a trend; one says nothing about it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from bigtickets.analysis.statistics.estimates import Estimate, unavailable
from bigtickets.analysis.statistics.law_points import SIZE, LawPoint, Predictor
from bigtickets.analysis.statistics.law_tests import mixed_slope, permutation_test
from bigtickets.analysis.statistics.trend import crossed_slope, difference, two_level_bootstrap


@dataclass(frozen=True)
class LogLaw:
    """The quantity against the logarithm of the amount: of parameters, or of training examples.

    The words are those of a law over sizes: models have sizes, tasks are the random effect. Over
    amounts of data, shares of the data have amounts and models are the random effect.
    """

    what: str
    kind: Literal["trend", "difference", "none"]
    slope: Estimate
    """Change per tenfold amount; for `difference`: larger minus smaller. The
    interval is for other models and tasks like these."""
    bootstrap: Estimate
    """The same slope with a two-level bootstrap's interval: other tasks and seeds, these models."""
    mixed: Estimate
    """Linear mixed model with tasks as random effect. Its Wald interval knows neither of models
    that lie off the trend nor of tasks with slopes of their own, and is then much too narrow."""
    p_permutation: float | None
    """Sizes permuted over the models, the same way in every task. Exact for "size matters
    in no task"; where tasks have slopes of their own that cancel on average, it is too small."""
    p_smallest: float | None
    """The least p-value that this number of sizes can give."""
    p_within_blocks: float | None
    """Size labels permuted in each task by itself: right only if, besides, models differ in
    nothing that all tasks see; else far too small."""
    found: bool
    """The slope's interval excludes 0: it alone keeps its level in all the simulations of
    benchmarks/statistics_truth.py, which are of model sizes."""
    settings: tuple[str, ...]
    """By amount."""
    blocks: tuple[str, ...]
    points: int
    left_out: tuple[tuple[str, str, str], ...]
    """(setting, block, reason) of the values that do not exist. A collapse point that lies beyond
    the levels is not missing at random: sizes that lose many are flattered or harmed by it."""
    note: str
    reason: str | None = None


def log_law(
    points: Sequence[LawPoint],
    what: str,
    over: Predictor = SIZE,
    confidence: float = 0.95,
    seed: int = 0,
) -> LogLaw:
    """Trend over three amounts or more, difference of two, nothing for one.

    value(model, task) = a(task) + b log10(parameters) + model + model x task, or the same with
    shares of the data, models and training examples. Points without a value are left out and
    named.
    """
    known = [p for p in points if p.value is not None and math.isfinite(p.value)]
    left = [p for p in points if p not in known]
    frame = _frame(known)
    amounts = frame["amount"].nunique()
    law = _no_law(what, over, frame, left, confidence)
    if amounts < 2:
        return law
    if amounts > 2:
        return _trend(law, frame, over, confidence, seed)
    found = difference(frame, over, confidence)
    note = f"two {over.amounts}: a difference between these {over.settings}, not a trend"
    return replace(law, kind="difference", slope=found, found=found.excludes(), note=note)


def _frame(known: Sequence[LawPoint]) -> pd.DataFrame:
    """The points as `bigtickets.analysis.statistics.trend` takes them."""
    rows = [
        (p.setting, math.log10(p.amount), p.block, p.value, p.standard_error, p.df) for p in known
    ]
    frame = pd.DataFrame(rows, columns=["setting", "amount", "block", "value", "error", "df"])
    return frame.astype({"value": float, "amount": float, "error": float, "df": float})


def _no_law(
    what: str,
    over: Predictor,
    frame: pd.DataFrame,
    left: Sequence[LawPoint],
    confidence: float,
) -> LogLaw:
    """The law that claims nothing yet."""
    nothing = unavailable(f"fewer than two {over.amounts} have a value", confidence)
    ordered = frame.sort_values("amount")
    return LogLaw(
        what=what,
        kind="none",
        slope=nothing,
        bootstrap=nothing,
        mixed=nothing,
        p_permutation=None,
        p_smallest=None,
        p_within_blocks=None,
        found=False,
        settings=tuple(dict.fromkeys(ordered["setting"])),
        blocks=tuple(sorted(set(frame["block"]))),
        points=len(frame),
        left_out=tuple((p.setting, p.block, p.reason or "no value") for p in left),
        note="",
        reason=nothing.reason if frame["amount"].nunique() < 2 else None,
    )


def _trend(
    law: LogLaw, frame: pd.DataFrame, over: Predictor, confidence: float, seed: int
) -> LogLaw:
    """Three amounts or more."""
    slope = crossed_slope(frame, over, confidence)
    p_value, smallest = permutation_test(frame, seed)
    mixed, note = mixed_slope(frame, over, confidence)
    return replace(
        law,
        kind="trend",
        slope=slope,
        bootstrap=two_level_bootstrap(frame, over, confidence, seed),
        mixed=mixed,
        p_permutation=p_value,
        p_smallest=smallest,
        p_within_blocks=permutation_test(frame, seed, within_blocks=True)[0],
        found=slope.excludes(),
        note=note,
    )
