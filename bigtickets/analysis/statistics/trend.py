"""Slopes over model sizes: tasks and models are both samples of what might have been taken.

All functions take a frame with columns setting (a model), amount (log10 of its parameters), block
(a task), value, and error and df (the value's standard error over seeds with its degrees of
freedom, or NaN); one row per setting and block, gaps allowed. Over amounts of data the settings are
shares of the data and the blocks models; the comments speak of models and tasks.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import statsmodels.api as sm

from bigtickets.analysis.statistics.estimates import (
    Array,
    Estimate,
    mean_interval,
    t_interval,
    unavailable,
)
from bigtickets.analysis.statistics.law_points import Predictor
from bigtickets.analysis.statistics.resampling import expanded_interval

DRAWS = 2000


def difference(frame: pd.DataFrame, over: Predictor, confidence: float) -> Estimate:
    """Larger size minus smaller, paired by task.

    Student's t over the tasks that have both; with one such task over its seeds, from the two
    standard errors.
    """
    wide = frame.pivot_table(index="block", columns="amount", values="value")
    paired = (wide[wide.columns.max()] - wide[wide.columns.min()]).dropna()
    if len(paired) == 0:
        return unavailable(f"no {over.block} has both {over.amounts}", confidence)
    if len(paired) > 1:
        return replace(mean_interval(paired, confidence), method=f"t over {over.blocks}")
    value = float(paired.iloc[0])
    rows = frame[frame["block"] == paired.index[0]]
    if len(rows) != 2 or rows[["error", "df"]].isna().any(axis=None):
        reason = f"one {over.block}, and its values have no standard errors: no interval"
        return Estimate(value, confidence=confidence, reason=reason)
    variance = rows["error"] ** 2
    df = float(variance.sum() ** 2 / (variance**2 / rows["df"]).sum())
    return t_interval(
        value, math.sqrt(variance.sum()), df, confidence, f"t over seeds, one {over.block}"
    )


@dataclass(frozen=True, eq=False)
class _Lines:
    """Least-squares line of each task over the sizes."""

    slope_T: Array
    spread_T: Array
    """Sum of squares of the sizes about their mean, per task: the slopes' weights."""
    error_T: Array
    """Standard error of the slope from the values' own; 0 where those are unknown."""
    rest: pd.DataFrame
    """Residuals about each task's own line, model x task; NaN at gaps."""

    @property
    def slope(self) -> float:
        """Common slope, task effects removed: the least-squares one."""
        return float((self.slope_T * self.spread_T).sum() / self.spread_T.sum())


def crossed_slope(frame: pd.DataFrame, over: Predictor, confidence: float) -> Estimate:
    """Slope with task effects removed, and an interval for other models and other tasks.

    The error has a part that a model brings to all its tasks (its family member may lie off the
    trend), a part that a task brings to all sizes (its slope may differ), and the rest. Summing
    the variance seen over models and that seen over tasks counts the rest twice, so it is taken
    off once (Owen 2007; Cameron, Gelbach and Miller 2011 have the same sum in a sandwich).
    Over models: the model means about their line, M-2 degrees of freedom; over tasks: the tasks'
    own slopes, T-1; Satterthwaite's rule joins them.
    """
    lines = _lines(frame)
    over_models, freedom = _over_models(frame)
    if freedom < 1:
        return unavailable(f"fewer than three {over.settings}", confidence)
    tasks = len(lines.slope_T)
    if tasks < 2:
        method = f"t over {over.settings}, one {over.block}"
        return t_interval(lines.slope, math.sqrt(over_models), freedom, confidence, method)
    over_tasks = _over_tasks(lines)
    rest = _rest(lines, freedom)
    total = max(over_models + over_tasks - rest, rest)
    parts = (
        over_models**2 / freedom + over_tasks**2 / (tasks - 1) + rest**2 / (freedom * (tasks - 1))
    )
    df = min(total**2 / max(parts, 1e-300), freedom + tasks - 1)
    method = f"t over {over.settings} and {over.blocks}"
    return t_interval(lines.slope, math.sqrt(total), df, confidence, method)


def _lines(frame: pd.DataFrame) -> _Lines:
    """A line per task that has two sizes."""
    slopes, spreads, errors, rests = [], [], [], {}
    for block, rows in frame.groupby("block"):
        x = rows["amount"] - rows["amount"].mean()
        spread = float((x**2).sum())
        if spread <= 0:
            continue
        slope = float((x * rows["value"]).sum()) / spread
        slopes.append(slope)
        spreads.append(spread)
        errors.append(math.sqrt(float((x**2 * rows["error"].fillna(0.0) ** 2).sum())) / spread)
        rest = rows["value"] - rows["value"].mean() - slope * x
        rests[block] = pd.Series(rest.to_numpy(), index=rows["setting"].to_numpy())
    return _Lines(np.array(slopes), np.array(spreads), np.array(errors), pd.DataFrame(rests))


def _over_models(frame: pd.DataFrame) -> tuple[float, int]:
    """Variance of the slope as the model means show it, and its degrees of freedom."""
    centred = frame.assign(value=frame["value"] - frame.groupby("block")["value"].transform("mean"))
    means = centred.groupby("setting").agg(amount=("amount", "first"), value=("value", "mean"))
    count = centred.groupby("setting")["value"].count()
    if len(means) < 3:
        return math.nan, 0
    fit = sm.WLS(means["value"], sm.add_constant(means["amount"]), weights=count).fit()
    return float(fit.bse["amount"]) ** 2, len(means) - 2


def _over_tasks(lines: _Lines) -> float:
    """Variance of the weighted mean of the tasks' slopes as they show it."""
    weight_T = lines.spread_T / lines.spread_T.sum()
    tasks = len(weight_T)
    return float((weight_T**2 * (lines.slope_T - lines.slope) ** 2).sum()) * tasks / (tasks - 1)


def _rest(lines: _Lines, freedom: int) -> float:
    """Variance of the slope from what is neither the model's nor the task's."""
    own = lines.rest.sub(lines.rest.mean(axis=1), axis=0)
    squares = float(np.nansum(own.to_numpy() ** 2))
    tasks = len(lines.slope_T)
    return squares / (freedom * (tasks - 1)) / float(lines.spread_T.sum())


def two_level_bootstrap(
    frame: pd.DataFrame, over: Predictor, confidence: float, seed: int
) -> Estimate:
    """Tasks resampled, and each value moved by its own standard error over seeds.

    The interval is the percentile one, widened for few tasks (`resampling.expanded_interval`).
    The tasks' slopes differ partly by those same errors, so it errs on the wide side. The models
    stay as they are: what a family member has of its own is in `crossed_slope`'s interval only.
    """
    lines = _lines(frame)
    tasks = len(lines.slope_T)
    if tasks < 4:
        reason = f"fewer than four {over.blocks}: no bootstrap over them"
        return Estimate(lines.slope, confidence=confidence, reason=reason)
    rng = np.random.default_rng([seed, 7])
    drawn_BT = rng.integers(tasks, size=(DRAWS, tasks))
    moved_BT = rng.standard_normal((DRAWS, tasks)) * lines.error_T[drawn_BT]
    weight_BT = lines.spread_T[drawn_BT]
    draw_B = (weight_BT * (lines.slope_T[drawn_BT] + moved_BT)).sum(1) / weight_BT.sum(1)
    low, high = expanded_interval(draw_B, tasks, confidence)
    error = float(draw_B.std(ddof=1))
    method = "two-level bootstrap, expanded percentile"
    return Estimate(lines.slope, low, high, error, tasks - 1, confidence, method)
