"""Does the amount matter at all: permuted amounts, and the mixed model's own slope.

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
from bigtickets.analysis.statistics.law_points import Predictor
from bigtickets.analysis.statistics.resampling import permutation_p

PERMUTATIONS = 2000


def permutation_test(
    frame: pd.DataFrame, seed: int, within_blocks: bool = False
) -> tuple[float, float]:
    """Two-sided p-value of the slope with the amounts permuted, and the least possible p-value.

    Over the settings, the same way in every block (exact: all permutations up to seven
    settings); or, `within_blocks`, in each block by itself.
    """
    block = pd.factorize(frame["block"])[0]
    setting, settings = pd.factorize(frame["setting"])
    amount_M = frame.groupby("setting")["amount"].first().loc[settings].to_numpy()
    rng = np.random.default_rng([seed, 8])
    if within_blocks:
        amount_PR = _within(frame["amount"].to_numpy(), block, rng)
        smallest = 1 / (1 + PERMUTATIONS)
    elif len(settings) <= 7:
        amount_PR = np.array(list(itertools.permutations(amount_M)))[:, setting]
        smallest = 2 / len(amount_PR)
    else:
        order_PM = rng.random((PERMUTATIONS, len(settings))).argsort(-1)
        amount_PR, smallest = amount_M[order_PM][:, setting], 1 / (1 + PERMUTATIONS)
    value = frame["value"].to_numpy()
    observed = abs(_slopes(amount_M[setting][None], value, block)[0])
    null_P = np.abs(_slopes(amount_PR, value, block))
    if not within_blocks and len(settings) <= 7:
        return float((null_P >= observed - 1e-12).mean()), smallest
    return permutation_p(null_P, float(observed)), smallest


def _within(amount_R: Array, block: Array, rng: np.random.Generator) -> Array:
    """Amounts permuted inside every block (P, R)."""
    amount_PR = np.tile(amount_R, (PERMUTATIONS, 1))
    for one in np.unique(block):
        rows = np.flatnonzero(block == one)
        order = rng.random((PERMUTATIONS, len(rows))).argsort(-1)
        amount_PR[:, rows] = amount_R[rows][order]
    return amount_PR


def _slopes(amount_PR: Array, value_R: Array, block_R: Array) -> Array:
    """Least-squares slopes with block effects removed, one per row of amounts (P,)."""
    centred_PR = amount_PR.astype(np.float64, copy=True)
    for one in np.unique(block_R):
        rows = block_R == one
        centred_PR[:, rows] -= centred_PR[:, rows].mean(1, keepdims=True)
    squares_P = (centred_PR**2).sum(1)
    top_P = centred_PR @ value_R
    return np.divide(top_P, squares_P, out=np.zeros_like(top_P), where=squares_P > 1e-12)


def mixed_slope(frame: pd.DataFrame, over: Predictor, confidence: float) -> tuple[Estimate, str]:
    """Slope of value ~ amount with blocks as random intercepts (REML), and a note.

    Where the fit does not converge, or there is one block, blocks are fixed effects instead and
    the note says so. The interval knows neither of settings that lie off the trend nor of blocks
    with slopes of their own: `crossed_slope`'s does.
    """
    unit = max(float(frame["value"].std()), 1e-300)  # the optimizer stalls on tiny variances
    centred = frame.assign(
        amount=frame["amount"] - frame["amount"].mean(), value=frame["value"] / unit
    )
    if frame["block"].nunique() > 1:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                fit = smf.mixedlm("value ~ amount", centred, groups=centred["block"]).fit(reml=True)
            return _wald(
                fit, unit, confidence, "mixed model, Wald"
            ), f"{over.blocks} as random intercepts"
        except (Warning, ValueError, np.linalg.LinAlgError) as problem:
            note = (
                f"{over.blocks} as fixed effects: the mixed model did not fit ({_short(problem)})"
            )
    else:
        note = f"one {over.block}: ordinary least squares"
    formula = "value ~ amount + C(block)" if frame["block"].nunique() > 1 else "value ~ amount"
    return _wald(smf.ols(formula, centred).fit(), unit, confidence, "least squares, t"), note


def _short(problem: BaseException) -> str:
    return str(problem).split(".")[0].strip() or type(problem).__name__


def _wald(fit: Any, unit: float, confidence: float, method: str) -> Estimate:
    """A fitted model's slope and its own interval."""
    low, high = unit * fit.conf_int(alpha=1 - confidence).loc["amount"]
    value, error = unit * float(fit.params["amount"]), unit * float(fit.bse["amount"])
    if not (math.isfinite(low) and math.isfinite(high)):
        reason = "as many coefficients as points: no interval"
        return Estimate(value, confidence=confidence, method=method, reason=reason)
    return Estimate(value, float(low), float(high), error, None, confidence, method)
