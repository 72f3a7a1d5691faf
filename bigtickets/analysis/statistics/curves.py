"""From the table of trials to curves: the scores of one kind of ticket by seed and level.

The paired difference d(x) = score(ticket at x, seed s) - score(dense model, seed s) is the
quantity that everything else is made of: seeds and data order are paired, so what a seed does to
all levels alike drops out of it. Up is better on every curve: the evaluation loss is negated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bigtickets.analysis.statistics.estimates import Array
from bigtickets.analysis.statistics.resampling import Mask, column_means
from bigtickets.errors import InputError

Value = Literal["score", "loss", "rescaled"]
Axis = Literal["x", "x_model", "x_flops"]
Trials = tuple[tuple[str | None, ...], ...]
CELL = ["model", "task", "data_fraction"]
COLUMNS = [*CELL, "parameters", "kind", "ratio", "seed", "majority_score", "degenerate", "id"]


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores of one (model, task, data fraction, kind) over seeds S and levels L."""

    model: str
    parameters: int
    """Encoder parameters of the dense model."""
    task: str
    data_fraction: float
    kind: str
    value: Value
    """`score`; `loss` (negated); `rescaled`: 0 is the majority class, 1 the dense model."""
    axis: Axis
    seeds: tuple[int, ...]
    ratios: tuple[float, ...]
    """Nominal ratios, without the dense model's 0."""
    x_L: Array
    """Fraction really removed, mean over the seeds."""
    value_SL: Array
    """(S, L+1); column 0 is the dense model; NaN where there is no score."""
    trials: Trials
    """Trial ids, shaped as `value_SL`."""
    degenerate: int
    """Flagged trials on the curve. They stay in, as far as they have a score."""
    missing: int
    """Cells of seeds x levels without a score. They stay missing."""
    majority: float | None
    """The majority class in the curve's units; None for the loss."""
    offset: float = 0.0
    scale: float = 1.0
    """value = (raw - offset) * scale."""
    reason: str | None = None
    """Why the curve is empty."""

    @property
    def difference_SL(self) -> Array:
        """Paired differences to the dense model (S, L); NaN where either is missing."""
        return self.value_SL[:, 1:] - self.value_SL[:, :1]

    @property
    def usable_S(self) -> Mask:
        """Seeds with a dense trial and at least one ticket's (S,)."""
        return np.isfinite(self.difference_SL).sum(1) > 0

    @property
    def mean_L(self) -> Array:
        """Mean paired difference per level; NaN where there is none."""
        return column_means(self.difference_SL)

    @property
    def standard_error_L(self) -> Array:
        """Standard error of `mean_L` over seeds; NaN below two seeds."""
        residual_SL = self.difference_SL - self.mean_L
        count_L = np.isfinite(residual_SL).sum(0)
        squares_L = np.nansum(residual_SL**2, axis=0)
        freedom_L = np.where(count_L > 1, count_L - 1, np.nan)
        return np.sqrt(squares_L / freedom_L / np.maximum(count_L, 1))


def curves(
    table: pd.DataFrame,
    kinds: Sequence[str] = ("winning",),
    value: Value = "score",
    axis: Axis = "x",
) -> list[Curve]:
    """Every curve of the wanted kinds, by model size, task, data fraction and kind.

    A row whose score is NaN is a missing cell; nothing is imputed. Raises InputError when a
    column is missing or two trials claim one cell.
    """
    raw = "loss" if value == "loss" else "score"
    lacking = [name for name in [*COLUMNS, raw, axis] if name not in table]
    if lacking:
        raise InputError(f"the table of trials has no column {lacking[0]!r}")
    found = []
    for _, cell in table.groupby(CELL, sort=False):
        dense = cell[(cell["kind"] == "dense") | (cell["ratio"] == 0)]
        for kind in kinds:
            rows = cell[(cell["kind"] == kind) & (cell["ratio"] > 0)]
            if len(rows):
                found.append(_curve(dense, rows, kind, value, axis))
    return sorted(found, key=lambda c: (c.parameters, c.model, c.task, c.data_fraction, c.kind))


def _curve(dense: pd.DataFrame, rows: pd.DataFrame, kind: str, value: Value, axis: Axis) -> Curve:
    """One curve from the dense trials and one kind's trials of a cell."""
    both = pd.concat([dense.assign(ratio=0.0), rows], ignore_index=True)
    _refuse_doubles(both, kind)
    first = rows.iloc[0]
    raw_SL, trials, seeds, ratios = _grid(both, "loss" if value == "loss" else "score")
    offset, scale, majority, reason = _units(raw_SL[:, 0], both["majority_score"], value)
    x = rows.groupby("ratio")[axis].mean()
    return Curve(
        model=str(first["model"]),
        parameters=int(first["parameters"]),
        task=str(first["task"]),
        data_fraction=float(first["data_fraction"]),
        kind=kind,
        value=value,
        axis=axis,
        seeds=seeds,
        ratios=ratios,
        x_L=np.array([float(x[r]) if np.isfinite(x[r]) else r for r in ratios]),
        value_SL=(raw_SL - offset) * scale,
        trials=trials,
        degenerate=int(both["degenerate"].notna().sum()),
        missing=int((~np.isfinite(raw_SL)).sum()),
        majority=majority,
        offset=offset,
        scale=scale,
        reason=reason,
    )


def _refuse_doubles(rows: pd.DataFrame, kind: str) -> None:
    """InputError when one seed and level has two trials: a table of two protocols."""
    twice = rows[rows.duplicated(["ratio", "seed"], keep=False)]
    if len(twice):
        row = twice.iloc[0]
        cell = f"{row['model']}, {row['task']}, {kind}, ratio {row['ratio']}, seed {row['seed']}"
        raise InputError(f"two trials for {cell}: {', '.join(twice['id'].astype(str)[:2])}")


def _grid(rows: pd.DataFrame, raw: str) -> tuple[Array, Trials, tuple[int, ...], tuple[float, ...]]:
    """Scores and trial ids as seeds x (dense, levels); the dense model's column always exists."""
    levels = [0.0, *sorted(set(rows["ratio"]) - {0.0})]
    seeds = sorted(set(rows["seed"]))
    row_N = np.searchsorted(seeds, rows["seed"])
    column_N = np.searchsorted(levels, rows["ratio"])
    value_SL = np.full((len(seeds), len(levels)), np.nan)
    value_SL[row_N, column_N] = pd.to_numeric(rows[raw], errors="coerce")
    name_SL = np.full(value_SL.shape, None, dtype=object)
    name_SL[row_N, column_N] = rows["id"]
    trials = tuple(tuple(row) for row in name_SL)
    return value_SL, trials, tuple(int(s) for s in seeds), tuple(float(r) for r in levels[1:])


def _units(
    dense_S: Array, majority_N: pd.Series, value: Value
) -> tuple[float, float, float | None, str | None]:
    """Offset and scale of the curve's units, the majority class in them, and what is wrong."""
    known = pd.to_numeric(majority_N, errors="coerce").dropna()
    majority = float(known.iloc[0]) if len(known) else None
    if value == "loss":
        return 0.0, -1.0, None, None
    if value == "score":
        return 0.0, 1.0, majority, None
    dense = float(column_means(dense_S[:, None])[0])
    if majority is None or not dense > majority:
        return 0.0, np.nan, None, "the dense model is not above the majority class"
    return majority, 1 / (dense - majority), 0.0, None
