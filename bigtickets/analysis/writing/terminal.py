"""The means as a plain table for the terminal."""

from collections.abc import Sequence

import pandas as pd

from bigtickets.analysis.sections.means import mean_scores
from bigtickets.analysis.table import in_points
from bigtickets.analysis.writing.words import interval, kind_name, percent, points

HEADERS = ["model", "task", "kind", "ratio", "removed", "n", "score", "95 % interval"]
HEADERS += ["to dense", "95 % interval", "degenerate"]
SIDES = "lllrrrrrrrr"


def summary_table(table: pd.DataFrame) -> str:
    """Means per model, task, kind and ratio: fraction of the encoder removed, seeds, mean score
    with its interval over seeds, paired difference to the dense model with its own; in points."""
    if not len(table):
        return "no trial has finished yet"
    rows = [_row(level) for level in mean_scores(in_points(table)).itertuples()]
    previous: Sequence[str] = ["", "", ""]
    shown = []
    for row in rows:
        # A name stands where it changes.
        same = [row[:i] == list(previous[:i]) for i in (1, 2)]
        shown.append(["" if same[0] else row[0], "" if same[1] else row[1], *row[2:]])
        previous = row
    return _aligned([HEADERS, *shown])


def _row(level: object) -> list[str]:
    get = level.__getattribute__
    share = "" if get("data_fraction") == 1 else f" ({percent(get('data_fraction'))})"
    dense = get("kind") == "dense"
    flagged = get("degenerate")
    return [
        get("model"),
        get("task") + share,
        kind_name(get("kind")),
        f"{get('ratio'):g}",
        percent(get("x")),
        str(get("n")),
        points(get("mean")),
        interval(get("low"), get("high")),
        "" if dense else points(get("difference"), signed=True),
        "" if dense else interval(get("difference_low"), get("difference_high"), signed=True),
        str(flagged) if flagged else "",
    ]


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADERS))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for cell, width, side in zip(row, widths, SIDES, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
