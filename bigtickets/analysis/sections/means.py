"""Mean scores against the fraction removed, with an interval over seeds."""

import numpy as np
import pandas as pd

from bigtickets.analysis.statistics.estimates import mean_interval
from bigtickets.analysis.table import CELL

LEVEL = [*CELL, "kind", "ratio"]
NUMBERS = ["mean", "low", "high", "difference", "difference_low", "difference_high", "majority"]


def mean_scores(
    table: pd.DataFrame, value: str = "score", confidence: float = 0.95
) -> pd.DataFrame:
    """One row per model, task, data fraction, kind and ratio, in the table's order.

    Columns: parameters, metric, x, x_model, x_flops (means over the trials), trials (how many),
    n (those with a value), mean, low, high (Student's t over seeds); difference,
    difference_low, difference_high, pairs (to the dense model of the same seed); majority;
    degenerate (how many are flagged). NaN where there is nothing to be had: an interval of one
    seed, or of seeds without spread. Flagged trials stay in.
    """
    dense = table[table["kind"] == "dense"].set_index([*CELL, "seed"])[value]
    keys = pd.MultiIndex.from_frame(table[[*CELL, "seed"]])
    paired = table.assign(difference=table[value] - dense.reindex(keys).to_numpy())
    groups = paired.groupby(LEVEL, sort=False)
    rows = [{**dict(zip(LEVEL, key, strict=True)), **_level(g, value, confidence)}
            for key, g in groups]  # fmt: skip
    levels = pd.DataFrame(rows)
    return levels.astype(dict.fromkeys(NUMBERS, float))


def _level(rows: pd.DataFrame, value: str, confidence: float) -> dict[str, object]:
    """One level's numbers."""
    mean = mean_interval(rows[value], confidence)
    difference = mean_interval(rows["difference"], confidence)
    return {
        "parameters": rows["parameters"].iloc[0],
        "metric": rows["metric"].iloc[0],
        **{axis: rows[axis].mean() for axis in ("x", "x_model", "x_flops")},
        "trials": len(rows),
        "n": int(rows[value].notna().sum()),
        "mean": mean.value,
        "low": mean.low,
        "high": mean.high,
        "difference": difference.value,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "pairs": int(rows["difference"].notna().sum()),
        "majority": rows["majority_score"].mean(),
        "degenerate": int(rows["degenerate"].notna().sum()),
    }


def score_limits(levels: pd.DataFrame, trials: pd.DataFrame) -> tuple[float, float]:
    """One score axis, in points, for all models of a task.

    It shows every trial and the majority class; an interval of very few seeds may leave it.
    """
    shown = np.concatenate([100 * trials["score"], 100 * trials["majority_score"]])
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    room = 0.25 * max(high - low, 1.0)
    ends = 100 * levels[["low", "high"]].to_numpy(float)
    if np.isfinite(ends).any():
        low = min(low, max(float(np.nanmin(ends)), low - room))
        high = max(high, min(float(np.nanmax(ends)), high + room))
    margin = 0.05 * max(high - low, 1.0)
    return low - margin, high + margin
