"""The figures of a report, with their captions and with what they show in words."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bigtickets.analysis.figures import (
    curve_figure,
    gain_figure,
    heads_figure,
    models_figure,
    neurons_figure,
    png_bytes,
    svg_text,
)
from bigtickets.analysis.sections.kept import KeptLevel, kept_levels, read_masks
from bigtickets.analysis.sections.means import score_limits
from bigtickets.analysis.statistics.gain import Gain
from bigtickets.analysis.statistics.phases import Phases
from bigtickets.analysis.table import CELL
from bigtickets.analysis.writing.blocks import Picture
from bigtickets.analysis.writing.words import (
    cell_name,
    count,
    kind_name,
    listed,
    metric_name,
    percent,
    points,
)
from bigtickets.study.folder import RunFolder

Cell = tuple[str, str, float]
UNITS = {"heads": "Heads", "neurons": "Neurons", "blocks": "FFN blocks"}


def cells(table: pd.DataFrame) -> list[Cell]:
    """(model, task, data fraction) in the table's order."""
    return list(table[CELL].drop_duplicates().itertuples(index=False, name=None))


def of_cell(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """The rows of one model on one task and share of the data."""
    model, task, fraction = cell
    mine = (rows["model"] == model) & (rows["task"] == task) & (rows["data_fraction"] == fraction)
    return rows[mine]


def picture(name: str, title: str, words: str, caption: str, drawn: Any) -> Picture:
    """The drawn figure, as page and files take it."""
    return Picture(name, title, words, caption, svg_text(drawn, title), png_bytes(drawn))


def file_name(*parts: str | float) -> str:
    """Parts as a file name; where letters had to go, a digest keeps it apart from others."""
    exact = "-".join(str(part) for part in parts if part != 1.0)
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", exact).strip("-")
    return safe if safe == exact else f"{safe}-{hashlib.sha256(exact.encode()).hexdigest()[:6]}"


def curve_pictures(
    table: pd.DataFrame, levels: pd.DataFrame, phases: Mapping[Cell, Phases]
) -> Iterator[list[Picture]]:
    """Score against fraction removed: per task and share of the data, a figure for each model.

    `phases`: those of the winning tickets, where they are known.
    """
    for (task, fraction), trials in table.groupby(["task", "data_fraction"], sort=False):
        limits = score_limits(levels[levels["task"] == task], table[table["task"] == task])
        named = {(str(model), str(task), float(str(fraction))): rows
                 for model, rows in trials.groupby("model", sort=False)}  # fmt: skip
        yield [
            _curve_picture(cell, rows, of_cell(levels, cell), limits, phases.get(cell))
            for cell, rows in named.items()
        ]


def _curve_picture(
    cell: Cell,
    trials: pd.DataFrame,
    levels: pd.DataFrame,
    limits: tuple[float, float],
    phases: Phases | None,
) -> Picture:
    name = cell_name(*cell)
    title = f"{metric_name(levels['metric'].iloc[0])} against encoder weights removed, {name}"
    drawn = curve_figure(levels, trials, name, limits, phases)
    words = _curve_words(levels) + _phase_words(phases)
    return picture(file_name("curve", *cell), title, words, _curve_caption(levels), drawn)


def _phase_words(phases: Phases | None) -> str:
    if phases is None or phases.better is None:
        return ""
    widths = (phases.better, phases.as_good, phases.worse)
    named = zip(("I", "II", "III"), widths, strict=True)
    return f" Phases: {', '.join(f'{name} {percent(width, 0)}' for name, width in named)}."


def models_pictures(levels: pd.DataFrame) -> Iterator[Picture]:
    """Winning tickets of all models on one task; only where there are several."""
    winning = levels[(levels["kind"] == "winning") & levels["difference"].notna()]
    for (task, fraction), rows in winning.groupby(["task", "data_fraction"], sort=False):
        lines = {str(model): mine for model, mine in rows.groupby("model", sort=False)}
        if len(lines) > 1:
            name = cell_name("winning tickets", str(task), float(str(fraction)))
            words = "; ".join(_difference_words(m, mine) for m, mine in lines.items())
            caption = f"{_seeds(rows)} per level."
            title = f"Difference to dense by model: {name}"
            drawn = models_figure(lines, name)
            key = file_name("difference", str(task), float(str(fraction)))
            yield picture(key, title, words, caption, drawn)


def kept_pictures(folder: RunFolder, table: pd.DataFrame) -> tuple[list[Picture], list[Picture]]:
    """Heads and neurons that the winning tickets keep: (wide figures, narrow figures)."""
    wide: list[Picture] = []
    narrow: list[Picture] = []
    for cell in cells(table):
        trials = of_cell(table, cell)
        trials = trials[trials["kind"] == "winning"]
        masks = read_masks(folder, trials)
        for unit, words in UNITS.items():
            kept = kept_levels(trials, masks, unit)
            title, home = f"{words} kept: {cell_name(*cell)}", wide if unit == "heads" else narrow
            if kept:
                drawn = _kept_figure(unit, kept, title)
                name = file_name(unit, *cell)
                home.append(picture(name, title, _kept_words(kept), _kept_of(kept), drawn))
    return wide, narrow


def _kept_figure(unit: str, kept: list[KeptLevel], title: str) -> Any:
    if unit == "heads":
        return heads_figure(kept, title)
    return neurons_figure(kept, title, f"{UNITS[unit]} kept (%)")


def _curve_words(levels: pd.DataFrame) -> str:
    """The figure in numbers."""
    parts = []
    for kind, rows in levels.groupby("kind", sort=False):
        means = [
            points(row.mean) + (f" at {percent(row.x, 0)}" if kind != "dense" else "")
            for row in rows.itertuples()
        ]
        parts.append(f"{kind_name(str(kind))}: {', '.join(means)}")
    return "Mean scores. " + "; ".join(parts) + "."


def _curve_caption(levels: pd.DataFrame) -> str:
    """How many seeds, and how many of the trials are degenerate."""
    dense, pruned = levels[levels["kind"] == "dense"], levels[levels["kind"] != "dense"]
    parts = [f"{_seeds(pruned)} per level"] if len(pruned) else ["No ticket yet"]
    parts.append(f"dense {_seeds(dense)}" if len(dense) else "no dense model")
    flagged = int(levels["degenerate"].sum())
    return ", ".join(parts) + (f"; {count(flagged, 'trial')} degenerate." if flagged else ".")


def _seeds(levels: pd.DataFrame) -> str:
    """`3 seeds`, or `2 to 3 seeds` where levels differ."""
    low, high = int(levels["n"].min()), int(levels["n"].max())
    return count(high, "seed") if low == high else f"{low} to {high} seeds"


def _difference_words(model: str, levels: pd.DataFrame) -> str:
    values = [
        f"{points(row.difference, signed=True)} at {percent(row.x, 0)}"
        for row in levels.itertuples()
    ]
    return f"{model}: {', '.join(values)} removed"


def _kept_words(levels: list[KeptLevel]) -> str:
    parts = [
        f"at {percent(v.x, 0)} removed, layers keep "
        + listed([percent(share, 0) for share in v.share_LN.mean(1)])
        for v in levels
    ]
    return "; ".join(parts) + "."


def _kept_of(levels: list[KeptLevel]) -> str:
    most = max(level.tickets for level in levels)
    if most == 1:
        return "Winning tickets: one per level, shared by all seeds."
    return f"Winning tickets, mean of up to {most} per level (one per seed)."


def gain_picture(gains: Sequence[Gain]) -> Picture:
    """The gains of all cells, a row each."""
    rows = [
        (cell_name(g.model, g.task, g.data_fraction), g.debiased, g.naive, g.null) for g in gains
    ]
    words = "; ".join(
        f"{name}: de-biased {points(debiased.value, signed=True)}, naive "
        f"{points(naive, signed=True)}, noise alone {points(null, signed=True)}"
        for name, debiased, naive, null in rows
    )
    caption = "Gain of the best ratio over the dense model, with its 95 % interval."
    title = "Gain of the super ticket"
    return picture("gain", title, words, caption, gain_figure(rows))
