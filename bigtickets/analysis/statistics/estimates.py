"""An estimate with its interval: what every analysis returns, in plain floats.

Nothing here is ever NaN. What cannot be had is None, and `reason` says why.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number, the interval that goes with it, and how it was got."""

    value: float | None
    """Point estimate."""
    low: float | None = None
    """Lower end of the interval; None beside a value: open on that side, or not to be had."""
    high: float | None = None
    """Upper end of the interval."""
    standard_error: float | None = None
    df: float | None = None
    """Degrees of freedom behind the standard error."""
    confidence: float = 0.95
    method: str = ""
    reason: str | None = None
    """Why a value or an end of the interval is missing."""

    def excludes(self, number: float = 0.0) -> bool:
        """Whether the interval lies wholly on one side of `number`."""
        above = self.low is not None and self.low > number
        return above or (self.high is not None and self.high < number)


def unavailable(reason: str, confidence: float = 0.95) -> Estimate:
    """The estimate that cannot be had."""
    return Estimate(None, confidence=confidence, reason=reason)


def t_interval(
    value: float, standard_error: float, df: float, confidence: float, method: str
) -> Estimate:
    """value ± t(df) · standard error.

    A spread of exactly zero is no evidence of certainty (a coarse score repeats itself), so it
    gives the value without an interval.
    """
    if not math.isfinite(value):
        return unavailable("no finite value", confidence)
    plain = Estimate(float(value), confidence=confidence, method=method)
    if not (math.isfinite(standard_error) and df > 0):
        return replace(plain, reason="one seed: no interval")
    if standard_error <= 1e-12:
        return replace(plain, reason="the seeds show no spread: no interval")
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * standard_error
    return replace(
        plain,
        low=float(value - half),
        high=float(value + half),
        standard_error=float(standard_error),
        df=float(df),
    )


def mean_interval(values: ArrayLike, confidence: float = 0.95, extra: float = 0.0) -> Estimate:
    """Student's t interval of a mean over independent values; NaN values are left out.

    `extra` is variance that the values share and so do not show (that of the evaluation
    examples); it joins theirs by Satterthwaite's rule.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) == 0:
        return unavailable("no trial has a score here", confidence)
    own = float(finite.var(ddof=1)) / len(finite) if len(finite) > 1 else math.nan
    error, df = joined(own, len(finite) - 1, extra)
    return t_interval(float(finite.mean()), error, df, confidence, "t over seeds")


def joined(own: float, df: float, extra: float) -> tuple[float, float]:
    """Standard error and degrees of freedom of two independent variances' sum.

    Satterthwaite (1946); the second variance is taken as known, for it rests on hundreds of
    examples where the first rests on a handful of seeds.
    """
    total = own + extra
    if not (math.isfinite(total) and own > 0):
        return math.sqrt(total) if math.isfinite(total) else math.nan, df
    return math.sqrt(total), df * (total / own) ** 2


def p_value(estimate: Estimate) -> float | None:
    """Two-sided t test of 0; None without a standard error."""
    if estimate.value is None or not estimate.standard_error or estimate.df is None:
        return None
    return float(2 * stats.t.sf(abs(estimate.value) / estimate.standard_error, estimate.df))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted over their family (Holm 1979).

    statsmodels has it too, but collects the whole process's garbage at every call.
    """
    order = np.argsort(p_values)
    left = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * left), 1.0)
    return [float(p) for p in adjusted]


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Mean of numbers; None when one of them is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
