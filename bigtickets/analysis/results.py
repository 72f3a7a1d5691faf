"""All statistics of a run, computed once for the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import pandas as pd

from bigtickets.analysis.predictions import examples_of_cell
from bigtickets.analysis.sections.kept import read_masks
from bigtickets.analysis.statistics.agreement import Agreement, agreement
from bigtickets.analysis.statistics.collapse import DataCollapse, data_collapse
from bigtickets.analysis.statistics.contrast import Contrast, contrasts
from bigtickets.analysis.statistics.curves import Curve, curves
from bigtickets.analysis.statistics.estimates import Estimate
from bigtickets.analysis.statistics.examples import Examples
from bigtickets.analysis.statistics.gain import (
    Gain,
    TasksGain,
    gain,
    gain_over_tasks,
    in_units_of,
)
from bigtickets.analysis.statistics.law_points import DATA, LawPoint, Place, What, points_of
from bigtickets.analysis.statistics.laws import LogLaw, log_law
from bigtickets.analysis.statistics.transition import Transition, on_axis, transition
from bigtickets.analysis.table import CELL
from bigtickets.analysis.writing.words import percent
from bigtickets.study.folder import RunFolder

Cell = tuple[str, str, float]
PAIRS = (
    ("winning", "random"),
    ("winning", "random_layerwise"),
    ("winning", "losing"),
    ("winning", "reinit"),
)
LAWS: tuple[What, ...] = ("gain", "collapse_sd", "sharpness")


@dataclass(frozen=True)
class Law:
    """How something of the winning tickets depends on model size, at one share of the data."""

    data_fraction: float
    points: Sequence[LawPoint]
    law: LogLaw


@dataclass(frozen=True)
class DataLaw:
    """How something of the winning tickets depends on the amount of data, on one task."""

    task: str
    points: Sequence[LawPoint]
    """Their settings are shares of the data, as numbers in letters."""
    law: LogLaw


@dataclass(frozen=True)
class Results:
    """What the sections about statistics show."""

    gains: Sequence[Gain]
    """Of the winning tickets, per cell."""
    control_gains: Sequence[Gain]
    """Of the other kinds, treated in the same way."""
    tasks_gains: Sequence[TasksGain]
    """Per model, where there are several tasks."""
    transitions: Sequence[Transition]
    other_gains: Sequence[Gain]
    """The gains of the winning tickets on evaluation loss and on the rescaled score."""
    whole_model: Sequence[Estimate]
    """`collapse_sd` of each of the transitions, as a fraction of all weights."""
    others: Sequence[Transition]
    """Their transitions on those."""
    contrasts: Sequence[Contrast]
    agreements: Sequence[tuple[Cell, float, Agreement]]
    """Of the winning tickets of different seeds, per cell, ratio and unit type."""
    laws: Sequence[Law]
    data_laws: Sequence[DataLaw]
    """Per task with several shares of the data."""
    collapses: Sequence[tuple[str, DataCollapse]]
    """Exploratory, per task, where there are three sizes."""
    no_examples: Sequence[tuple[Cell, str]]
    """Cells whose evaluation examples cannot be resampled, and why: for the score, or if that can
    be, for the loss."""


def analyse(folder: RunFolder, table: pd.DataFrame) -> Results:
    """Every estimate that the table, the predictions and the tickets allow."""
    winning = curves(table)
    examples, refused = _examples(folder, table)
    gains = [gain(curve, examples[_cell(curve)]) for curve in winning]
    transitions = [transition(curve, examples[_cell(curve)]) for curve in winning]
    kinds = [str(k) for k in table["kind"].unique() if k not in ("dense", "winning")]
    controls = [gain(c, examples[_cell(c)]) for c in curves(table, kinds)]
    losses, rescaled = (curves(table, value=value) for value in ("loss", "rescaled"))
    of_loss, refused_loss = _examples(folder, table, "loss")
    return Results(
        gains=gains,
        control_gains=controls,
        tasks_gains=_over_tasks(gains),
        transitions=transitions,
        other_gains=[
            *(gain(curve, of_loss[_cell(curve)]) for curve in losses),
            *(in_units_of(curve, one) for curve, one in zip(rescaled, gains, strict=True)),
        ],
        whole_model=[
            on_axis(one.collapse_sd, curve, whole)
            for one, curve, whole in zip(
                transitions, winning, curves(table, axis="x_model"), strict=True
            )
        ],
        others=[transition(curve) for curve in (*losses, *rescaled)],
        contrasts=contrasts(table, [p for p in PAIRS if p[1] in kinds]) if winning else [],
        agreements=_agreements(folder, table),
        laws=_laws(gains, transitions),
        data_laws=_data_laws(gains, transitions, table),
        collapses=_collapses(table),
        no_examples=[*refused, *(one for one in refused_loss if examples[one[0]] is not None)],
    )


def _cell(curve: Curve) -> Cell:
    return curve.model, curve.task, curve.data_fraction


def _examples(
    folder: RunFolder, table: pd.DataFrame, value: Literal["score", "loss"] = "score"
) -> tuple[dict[Cell, Examples | None], list[tuple[Cell, str]]]:
    found: dict[Cell, Examples | None] = {}
    refused = []
    for (model, task, fraction), rows in table.groupby(CELL, sort=False):
        cell = (str(model), str(task), float(fraction))
        found[cell], why = examples_of_cell(folder, rows, value)
        if why:
            refused.append((cell, why))
    return found, refused


def _over_tasks(gains: Sequence[Gain]) -> list[TasksGain]:
    """One per model and share of the data with several tasks."""

    def key(one: Gain) -> tuple[int, str, float]:
        return one.parameters, one.model, one.data_fraction

    groups = [list(group) for _, group in groupby(sorted(gains, key=key), key)]
    return [gain_over_tasks(group) for group in groups if len(group) > 1]


def _agreements(folder: RunFolder, table: pd.DataFrame) -> list[tuple[Cell, float, Agreement]]:
    """Empty where all seeds share one ticket."""
    found = []
    winning = table[table["kind"] == "winning"]
    for (model, task, fraction, ratio), rows in winning.groupby([*CELL, "ratio"], sort=False):
        masks = list(read_masks(folder, rows).values())
        if len(masks) > 1:
            cell = (str(model), str(task), float(fraction))
            found += [(cell, float(ratio), one) for one in agreement(masks)]
    return found


def _collapses(table: pd.DataFrame) -> list[tuple[str, DataCollapse]]:
    """One per task and share of the data; few models give none."""
    if table["model"].nunique() < 3:
        return []
    found = []
    rescaled = curves(table, value="rescaled")
    for task, fraction in dict.fromkeys((c.task, c.data_fraction) for c in rescaled):
        mine = [c for c in rescaled if (c.task, c.data_fraction) == (task, fraction)]
        name = task if fraction == 1 else f"{task}, {percent(fraction)} of the data"
        found.append((name, data_collapse(mine)))
    return found


def _laws(gains: Sequence[Gain], transitions: Sequence[Transition]) -> list[Law]:
    """Laws per share of the data; none for a single model."""
    laws = []
    for fraction in sorted({one.data_fraction for one in gains}, reverse=True):
        for what in LAWS:
            results = gains if what == "gain" else transitions
            mine = [one for one in results if one.data_fraction == fraction]
            if len({one.model for one in mine}) > 1:
                points = points_of(mine, what)
                laws.append(Law(fraction, points, log_law(points, what)))
    return laws


def _data_laws(
    gains: Sequence[Gain], transitions: Sequence[Transition], table: pd.DataFrame
) -> list[DataLaw]:
    """Laws over training examples per task, models as the random effect."""
    laws = []
    for task, trials in table.groupby("task", sort=False):
        examples = trials.groupby("data_fraction")["train_examples"].max().dropna()

        def place(one: Gain | Transition, amounts: pd.Series = examples) -> Place:
            return repr(one.data_fraction), float(amounts[one.data_fraction]), one.model

        for what in LAWS:
            results = gains if what == "gain" else transitions
            mine = [one for one in results if one.task == task and one.data_fraction in examples]
            if len({one.data_fraction for one in mine}) > 1:
                points = points_of(mine, what, place)
                laws.append(DataLaw(str(task), points, log_law(points, what, DATA)))
    return laws
