"""The figures: the only file that imports matplotlib, without a display or global state.

Everything is drawn in the light palette; `svg_text` and `png_bytes` are what leaves this file.
Texts of the user never pass through the formula parser.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from numpy.typing import ArrayLike, NDArray

from bigtickets.analysis.sections.kept import KeptLevel
from bigtickets.analysis.statistics.estimates import Estimate
from bigtickets.analysis.statistics.phases import Phases
from bigtickets.analysis.writing.palette import DASHES, LIGHT, MARKERS, MODEL_MARKERS, STYLE
from bigtickets.analysis.writing.ticks import apart, legend_label, rectangles, some
from bigtickets.analysis.writing.words import DASH, kind_name, metric_name

X_LABEL = "Encoder weights removed (%)"


@rc_context(STYLE)
def curve_figure(
    levels: pd.DataFrame,
    trials: pd.DataFrame,
    title: str,
    limits: tuple[float, float],
    phases: Phases | None = None,
) -> Figure:
    """Score against encoder fraction removed, of one model on one task: a line per kind.

    `levels`: rows of `mean_scores`; `trials`: rows of the table, one small point each;
    `limits`: of the score axis, in points; `phases`: of the winning tickets, as shades.
    """
    figure, axes = _canvas(title, (4.2, 3.1))
    if phases is not None:
        _draw_phases(axes, phases)
    _draw_dense(axes, levels[levels["kind"] == "dense"])
    kinds = [kind for kind in MARKERS if kind in set(levels["kind"])]
    for place, kind in enumerate(kinds):
        offset = 0.9 * (place - (len(kinds) - 1) / 2)
        _draw_kind(axes, levels[levels["kind"] == kind], kind, offset)
        _draw_trials(axes, trials[trials["kind"] == kind], kind, offset)
    _finish(axes, X_LABEL, metric_name(str(levels["metric"].iloc[0])))
    axes.set_xlim(-2 if kinds else 0, 100 * levels["x"].max() + 4 if kinds else 100)
    axes.set_ylim(*limits)
    _legend_below(figure, axes)
    return figure


@rc_context(STYLE)
def models_figure(lines: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Difference to the dense model against fraction removed: a line per model, smallest first."""
    figure, axes = _canvas(title, (4.2, 3.1))
    axes.axhline(0, color=LIGHT["muted"], linewidth=0.8)
    for place, (name, levels) in enumerate(lines.items()):
        look = place % len(MODEL_MARKERS)
        offset = 0.7 * (place - (len(lines) - 1) / 2)
        _error_line(
            axes,
            100 * levels["x"] + offset,
            *(100 * levels[key] for key in ("difference", "difference_low", "difference_high")),
            color=LIGHT[f"model{look}"],
            marker=MODEL_MARKERS[look],
            label=name,
        )
    _finish(axes, X_LABEL, "Difference to dense (points)")
    seen = 100 * np.concatenate([levels["difference"] for levels in lines.values()])
    low, high = min(float(np.nanmin(seen)), 0.0), max(float(np.nanmax(seen)), 0.0)
    margin = 0.2 * max(high - low, 1.0)
    axes.set_ylim(low - margin, high + margin)
    _legend_below(figure, axes)
    return figure


@rc_context(STYLE)
def heads_figure(levels: Sequence[KeptLevel], title: str) -> Figure:
    """Which units stay, layers x units: a panel per level; the fuller, the more tickets keep it."""
    columns = min((4, 3), key=lambda n: -len(levels) % n) if len(levels) > 4 else len(levels)
    rows = -(-len(levels) // columns)
    layers, units = levels[0].share_LN.shape
    height = max(0.2, 1.25 * min(layers / units, 2.2)) + 0.4
    figure = Figure((0.35 + 1.45 * columns, 0.6 + height * rows), layout="constrained")
    _title(figure, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(levels) :]:
        axes.set_axis_off()
    for place, (axes, level) in enumerate(zip(grid.flat, levels, strict=False)):
        _draw_kept(axes, level, place % columns == 0, place + columns >= len(levels))
    return figure


@rc_context(STYLE)
def neurons_figure(levels: Sequence[KeptLevel], title: str, y_label: str) -> Figure:
    """Share of a layer's units that stay: a line per level, the fainter the more is removed."""
    figure, axes = _canvas(title, (4.2, 2.7))
    layer_L = np.arange(1, len(levels[0].share_LN) + 1)
    ends, names = [], []
    for place, level in enumerate(levels):
        share_L = 100 * level.share_LN.mean(1)
        alpha = 1 - 0.65 * place / max(len(levels) - 1, 1)
        axes.plot(layer_L, share_L, "o-", color=LIGHT["winning"], alpha=alpha, markersize=3.5)
        ends.append(share_L[-1])
        names.append(f"{100 * level.x:.0f} % removed")
    for height, name in zip(apart(ends, 100 / 15), names, strict=True):
        axes.annotate(
            name, (layer_L[-1], height), (5, 0), textcoords="offset points", va="center", fontsize=7
        )
    _finish(axes, "Layer (1 is next to the embeddings)", y_label)
    axes.set_ylim(0, 104)
    axes.set_xticks(some(layer_L))
    return figure


@rc_context(STYLE)
def gain_figure(rows: Sequence[tuple[str, Estimate, float | None, float | None]]) -> Figure:
    """Gains of the super ticket: (name, de-biased, naive, null), a row each, in points."""
    figure = Figure((6.0, 0.95 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color=LIGHT["muted"], linewidth=0.8)
    for place, (_, debiased, naive, null) in enumerate(rows):
        _draw_gain(axes, place, debiased, naive, null, first=place == 0)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("Gain over the dense model (points)")
    _legend_below(figure, axes)
    return figure


@rc_context(STYLE)
def amount_figure(
    points: Sequence[tuple[str, float, Estimate]],
    title: str,
    labels: tuple[str, str],
    tick: Callable[[float], str],
) -> Figure:
    """Something, times 100, against an amount: (line, amount, estimate), a look per line.

    `labels` of both axes; `tick`: the amount in words.
    """
    figure, axes = _canvas(title, (4.2, 2.7))
    for place, line in enumerate(dict.fromkeys(point[0] for point in points)):
        look = place % len(MODEL_MARKERS)
        mine = sorted((p[1:] for p in points if p[0] == line), key=lambda p: p[0])
        x = np.array([amount for amount, _ in mine]) * (1 + 0.015 * place)
        values = [(e.value, e.low, e.high) for _, e in mine]
        y, low, high = 100 * pd.DataFrame(values, dtype=float).to_numpy().T
        colour, marker = LIGHT[f"model{look}"], MODEL_MARKERS[look]
        _error_line(axes, x, y, low, high, color=colour, marker=marker, label=line, linewidth=1)
    axes.set_xscale("log")
    _finish(axes, *labels)
    amounts = sorted({point[1] for point in points})
    axes.set_xticks(amounts, [tick(amount) for amount in amounts])
    axes.set_xticks([], minor=True)
    axes.set_xlim(amounts[0] / 1.3, amounts[-1] * 1.3)
    _legend_below(figure, axes)
    return figure


def svg_text(figure: Figure, title: str) -> str:
    """The figure as SVG text: texts stay texts, the same figure gives the same bytes."""
    file = io.StringIO()
    _save(figure, file, format="svg", metadata={"Date": None, "Title": title})
    # The layout is found now, and takes as long as drawing: a PNG that follows keeps it.
    figure.set_layout_engine("none")
    return file.getvalue()


def png_bytes(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG."""
    file = io.BytesIO()
    _save(figure, file, format="png", dpi=dpi)
    return file.getvalue()


def _save(figure: Figure, file: Any, **options: Any) -> None:
    with rc_context(STYLE), warnings.catch_warnings():
        # Names may hold characters that the drawing's font lacks; the reader's font has them.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(file, facecolor=LIGHT["paper"], **options)


def _canvas(title: str, inches: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(inches, layout="constrained")
    _title(figure, title)
    return figure, figure.add_subplot()


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(title, parse_math=False, fontsize=9, fontweight="bold", x=0.01, ha="left")


def _finish(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label, parse_math=False)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    lines = [h[0] if isinstance(h, ErrorbarContainer) else h for h in handles]
    look = {"handlelength": 2.4, "columnspacing": 1.2, "ncols": min(len(labels), 4)}
    legend = figure.legend(lines, labels, loc="outside lower left", **look)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_phases(axes: Axes, phases: Phases) -> None:
    """Stretches of x behind the curves, with their numbers above; none where there is no width."""
    start = 0.0
    looks = (("I", phases.better, "winning"), ("II", phases.as_good, None),
             ("III", phases.worse, "muted"))  # fmt: skip
    for name, width, colour in looks:
        end = start + 100 * (width or 0.0)
        if end > start:
            if colour:
                axes.axvspan(start, end, color=LIGHT[colour], alpha=0.12, lw=0)
            where: Any = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            axes.annotate(name, ((start + end) / 2, 1), color=LIGHT["muted"], fontsize=7, **where)
        start = end


def _draw_dense(axes: Axes, dense: pd.DataFrame) -> None:
    """The dense model as a band across, and the majority class as a dotted line."""
    for row in dense.itertuples():
        if np.isfinite(row.low):
            axes.axhspan(100 * row.low, 100 * row.high, color=LIGHT["band"], alpha=0.45, lw=0)
        axes.axhline(100 * row.mean, color=LIGHT["ink"], linewidth=1.0, label="dense")
        if np.isfinite(row.majority):
            look: Any = {"color": LIGHT["muted"], "linewidth": 1.0, "linestyle": (0, (1, 2))}
            axes.axhline(100 * row.majority, label="majority class", **look)


def _draw_kind(axes: Axes, levels: pd.DataFrame, kind: str, offset: float) -> None:
    _error_line(
        axes,
        100 * levels["x"] + offset,
        *(100 * levels[key] for key in ("mean", "low", "high")),
        color=LIGHT[kind],
        marker=MARKERS[kind],
        label=kind_name(kind),
        linestyle=DASHES[kind],
    )


def _draw_trials(axes: Axes, trials: pd.DataFrame, kind: str, offset: float) -> None:
    """One faint point per trial, a cross where the run is degenerate."""
    flagged = trials["degenerate"].notna()
    for rows, marker, area in ((trials[~flagged], MARKERS[kind], 6), (trials[flagged], "x", 14)):
        x = 100 * rows["x"] + 2.2 * offset + (0 if offset else 1.2)
        look: Any = {"color": LIGHT[kind], "alpha": 0.55, "linewidths": 0.8}
        axes.scatter(x, 100 * rows["score"], s=area, marker=marker, zorder=1.9, **look)


def _error_line(
    axes: Axes, x: ArrayLike, y: ArrayLike, low: ArrayLike, high: ArrayLike, **look: Any
) -> None:
    """A line through means with their intervals; none where there is none."""
    ends = np.nan_to_num(np.abs(np.array([low, high], float) - np.asarray(y, float)))
    label = legend_label(str(look.pop("label")))
    axes.errorbar(x, y, yerr=ends, elinewidth=1.0, capsize=2, capthick=1.0, label=label, **look)


def _draw_kept(axes: Axes, level: KeptLevel, left: bool, bottom: bool) -> None:
    """One panel: a square per unit, outlined if it goes."""
    layers, units = level.share_LN.shape
    axes.set(xlim=(-0.5, units - 0.5), ylim=(layers - 0.5, -0.5))
    axes.set_aspect("equal")
    axes.tick_params(length=0, labelsize=6.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(f"{100 * level.x:.0f} % removed", fontsize=8, fontweight="normal")
    shares = [share for share in np.unique(level.share_LN) if share > 0]
    _squares(axes, np.ones_like(level.share_LN, bool), LIGHT["faint"], 1.0)
    for share in shares:
        _squares(axes, level.share_LN == share, LIGHT["winning"], 0.2 + 0.8 * float(share))
    rows, columns = some(np.arange(layers)), some(np.arange(units))
    axes.set_yticks(rows, [str(row + 1) for row in rows] if left else [])
    axes.set_xticks(columns, [str(column + 1) for column in columns] if bottom else [])
    if left:
        axes.set_ylabel("Layer", fontsize=7.5)
    if bottom:
        axes.set_xlabel("Head", fontsize=7.5)


def _squares(axes: Axes, mask_LN: NDArray[np.bool_], colour: str, alpha: float) -> None:
    """All squares of one colour as a single path: a large model stays a small file."""
    vertices = rectangles(mask_LN)
    codes = np.tile([Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY], len(vertices) // 5)
    if len(vertices):
        patch = PathPatch(Outline(vertices, codes), facecolor=colour, alpha=alpha, linewidth=0)
        axes.add_patch(patch)


def _draw_gain(
    axes: Axes,
    place: int,
    debiased: Estimate,
    naive: float | None,
    null: float | None,
    first: bool,
) -> None:
    """One row: the de-biased gain with its interval; the naive and the null gain beside it."""
    muted: Any = {"color": LIGHT["muted"], "linestyle": "none", "zorder": 3}
    values = [100 * v if v is not None else np.nan for v in (debiased.value, naive, null)]
    ends = [100 * v if v is not None else values[0] for v in (debiased.low, debiased.high)]
    axes.plot(ends, [place, place], color=LIGHT["winning"], linewidth=1.8, solid_capstyle="butt")
    if debiased.value is None:
        axes.annotate(DASH, (0, place), va="center", ha="center")
    labels = ["de-biased, with interval", "naive", "from noise alone"] if first else [None] * 3
    axes.plot(values[0], place, "o", color=LIGHT["winning"], label=labels[0], markersize=5.5)
    axes.plot(values[1], place, "D", mfc="none", label=labels[1], markersize=5, **muted)
    axes.plot(values[2], place, "|", label=labels[2], markersize=10, markeredgewidth=1.6, **muted)
