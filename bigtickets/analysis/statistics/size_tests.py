"""Is there a size effect at all: permuted size labels, and the mixed model's own slope.

The frame is that of `bigtickets.analysis.statistics.trend`.
"""

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

from bigtickets.analysis.statistics.estimates import Array, Estimate
from bigtickets.analysis.statistics.resampling import permutation_p

PERMUTATIONS = 2000


def permutation_test(
    frame: pd.DataFrame, seed: int, within_tasks: bool = False
) -> tuple[float, float]:
    """Two-sided p-value of the slope with size labels permuted, and the least possible p-value.

    Over models, the same way in every task (exact: all permutations up to seven models); or,
    `within_tasks`, in each task by itself.
    """
    task = pd.factorize(frame["task"])[0]
    model, models = pd.factorize(frame["model"])
    size_M = frame.groupby("model")["size"].first().loc[models].to_numpy()
    rng = np.random.default_rng([seed, 8])
    if within_tasks:
        size_PR, smallest = _within(frame["size"].to_numpy(), task, rng), 1 / (1 + PERMUTATIONS)
    elif len(models) <= 7:
        size_PR = np.array(list(itertools.permutations(size_M)))[:, model]
        smallest = 2 / len(size_PR)
    else:
        order_PM = rng.random((PERMUTATIONS, len(models))).argsort(-1)
        size_PR, smallest = size_M[order_PM][:, model], 1 / (1 + PERMUTATIONS)
    value = frame["value"].to_numpy()
    observed = abs(_slopes(size_M[model][None], value, task)[0])
    null_P = np.abs(_slopes(size_PR, value, task))
    if not within_tasks and len(models) <= 7:
        return float((null_P >= observed - 1e-12).mean()), smallest
    return permutation_p(null_P, float(observed)), smallest


def _within(size_R: Array, task: Array, rng: np.random.Generator) -> Array:
    """Sizes permuted inside every task (P, R)."""
    size_PR = np.tile(size_R, (PERMUTATIONS, 1))
    for one in np.unique(task):
        rows = np.flatnonzero(task == one)
        order = rng.random((PERMUTATIONS, len(rows))).argsort(-1)
        size_PR[:, rows] = size_R[rows][order]
    return size_PR


def _slopes(size_PR: Array, value_R: Array, task_R: Array) -> Array:
    """Least-squares slopes with task effects removed, one per row of sizes (P,)."""
    centred_PR = size_PR.astype(np.float64, copy=True)
    for one in np.unique(task_R):
        rows = task_R == one
        centred_PR[:, rows] -= centred_PR[:, rows].mean(1, keepdims=True)
    squares_P = (centred_PR**2).sum(1)
    top_P = centred_PR @ value_R
    return np.divide(top_P, squares_P, out=np.zeros_like(top_P), where=squares_P > 1e-12)


def mixed_slope(frame: pd.DataFrame, confidence: float) -> tuple[Estimate, str]:
    """Slope of value ~ size with tasks as random intercepts (REML), and a note.

    Where the fit does not converge, or there is one task, tasks are fixed effects instead and
    the note says so. The interval knows neither of models that lie off the trend nor of tasks
    with slopes of their own: `crossed_slope`'s does.
    """
    unit = max(float(frame["value"].std()), 1e-300)  # the optimizer stalls on tiny variances
    centred = frame.assign(size=frame["size"] - frame["size"].mean(), value=frame["value"] / unit)
    if frame["task"].nunique() > 1:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                fit = smf.mixedlm("value ~ size", centred, groups=centred["task"]).fit(reml=True)
            return _wald(fit, unit, confidence, "mixed model, Wald"), "tasks as random intercepts"
        except (Warning, ValueError, np.linalg.LinAlgError) as problem:
            note = f"tasks as fixed effects: the mixed model did not fit ({_short(problem)})"
    else:
        note = "one task: ordinary least squares"
    formula = "value ~ size + C(task)" if frame["task"].nunique() > 1 else "value ~ size"
    return _wald(smf.ols(formula, centred).fit(), unit, confidence, "least squares, t"), note


def _short(problem: BaseException) -> str:
    return str(problem).split(".")[0].strip() or type(problem).__name__


def _wald(fit: Any, unit: float, confidence: float, method: str) -> Estimate:
    """A fitted model's slope and its own interval."""
    low, high = unit * fit.conf_int(alpha=1 - confidence).loc["size"]
    value, error = unit * float(fit.params["size"]), unit * float(fit.bse["size"])
    if not (math.isfinite(low) and math.isfinite(high)):
        reason = "as many coefficients as points: no interval"
        return Estimate(value, confidence=confidence, method=method, reason=reason)
    return Estimate(value, float(low), float(high), error, None, confidence, method)
