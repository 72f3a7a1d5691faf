"""Simulated curves of known truth, from the benchmark that runs them at full size."""

import dataclasses
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

PATH = Path(__file__).parents[2] / "benchmarks" / "statistics_truth.py"
_spec = importlib.util.spec_from_file_location("statistics_truth", PATH)
truth = importlib.util.module_from_spec(_spec)
sys.modules["statistics_truth"] = truth
_spec.loader.exec_module(truth)

# A correct share fails these bounds once in a thousand draws of the seeds; the seeds are fixed.
CHANCE = 0.001


def is_at_most(result: Any, rate: float) -> bool:
    """Whether the simulated share is compatible with a true one of at most `rate`."""
    hits = round(result.value * result.n)
    return bool(stats.binom.sf(hits - 1, result.n, rate) > CHANCE)


def is_at_least(result: Any, rate: float) -> bool:
    """Whether the simulated share is compatible with a true one of at least `rate`."""
    hits = round(result.value * result.n)
    return bool(stats.binom.cdf(hits, result.n, rate) > CHANCE)


def numbers(value: Any) -> list[Any]:
    """All leaves of a result."""
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in numbers(item)]
    return [value]


def is_plain(value: Any) -> bool:
    """Whether a result holds plain, finite Python values only."""
    leaves = numbers(value)
    finite = all(math.isfinite(leaf) for leaf in leaves if isinstance(leaf, float))
    return finite and all(type(leaf) in (float, int, str, bool, type(None)) for leaf in leaves)


def table_of(scores: dict[tuple[str, float, int], float | None], **known: Any) -> pd.DataFrame:
    """A tidy table from (kind, ratio, seed) -> score."""
    cell = {"model": "m", "parameters": 10**7, "task": "sst2", "data_fraction": 1.0}
    rows = []
    for (kind, ratio, seed), score in scores.items():
        row = {"kind": kind, "ratio": ratio, "seed": seed, "id": f"{kind}-{ratio}-{seed}"}
        row |= {"x": ratio + 0.001, "x_model": ratio / 2, "x_flops": ratio, "degenerate": None}
        row |= {"score": score, "loss": None if score is None else 1 - score}
        rows.append(cell | row | {"majority_score": 0.5} | known)
    return pd.DataFrame(rows)
