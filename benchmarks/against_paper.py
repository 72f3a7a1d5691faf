"""What each difference from the super-ticket paper's protocol changes, measured on a finished run.

    python benchmarks/against_paper.py RUN [--token-run RUN] [--out FILE]

The paper is Liang et al. 2021 (arXiv 2105.12002); its protocol point by point, and which table
here belongs to which point: docs/results/paper.md. Markdown with four parts, each from the records
of RUN alone:

* gain    the best of all ratios, chosen and measured on the same runs, against the de-biased gain
* axis    best ratio and collapse point on the encoder-only and on the whole-model axis
* scores  `token` against `example` granularity: the tickets of both, and their scores. The run of
          --token-run has the same models, tasks and seeds with `granularity: token`
          (examples/paper_protocol.yaml)
* random  units drawn with replacement: what share really goes, by formula and by simulation, and
          what that is worth on the measured curve of random tickets

An unfinished run is told as such; what cannot be had yet is left out and named.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from bigtickets.analysis.report import finished_trials
from bigtickets.analysis.results import Results, analyse
from bigtickets.analysis.sections.bysize import LAW_NAMES
from bigtickets.analysis.sections.evidence import gain_table
from bigtickets.analysis.sections.kept import masks_of
from bigtickets.analysis.statistics.agreement import agreement
from bigtickets.analysis.statistics.contrast import contrast
from bigtickets.analysis.statistics.curves import Axis, Curve, curves
from bigtickets.analysis.statistics.estimates import Estimate, mean_interval
from bigtickets.analysis.statistics.law_points import LawPoint
from bigtickets.analysis.statistics.laws import log_law
from bigtickets.analysis.statistics.levels import level_estimates
from bigtickets.analysis.statistics.phases import collapse_point, pooled_deviation
from bigtickets.analysis.table import in_points, missing_trials, planned_trials
from bigtickets.analysis.writing.blocks import Block, Items, Report, Section, Table, Text
from bigtickets.analysis.writing.cells import (
    CELL_HEADER,
    estimated,
    named_cell,
    plain,
    share,
    signed,
)
from bigtickets.analysis.writing.markdown import markdown
from bigtickets.analysis.writing.words import DASH, cell_name, count, p_value, percent, points
from bigtickets.errors import InputError
from bigtickets.files import read_json, write_bytes
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.state import read_manifest
from bigtickets.study.steps import Step
from bigtickets.tickets.scores import load_scores

UNITS = ("heads", "neurons", "blocks")
AXES: dict[Axis, str] = {"x": "encoder", "x_model": "whole model"}
PAPER_UNITS = {"heads": 144, "FFN blocks": 12}
"""Of BERT-base, as the paper's code prunes it."""
PAPER_LEVELS = ((14, 1), (28, 2), (43, 3), (57, 4), (72, 5), (86, 6), (100, 7), (115, 8))
"""(heads, FFN blocks) that its eight scripts ask to have removed."""
DRAWS = 200
Cell = tuple[str, str, float]


def main() -> None:
    """Read the records, print the tables; write them to --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of examples/size_ladder.yaml")
    parser.add_argument("--token-run", type=Path, help="of examples/paper_protocol.yaml")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = markdown(compare(options.run, options.token_run))
    print(text)
    if options.out:
        write_bytes(options.out, text.encode())


def compare(run: Path, token_run: Path | None) -> Report:
    """All four parts."""
    folder = open_run(run)
    table = in_points(finished_trials(folder))
    results = analyse(folder, table)
    sections = [
        gain_section(results),
        axis_section(table),
        scores_section(folder, table, results, token_run),
        random_section(folder, table),
    ]
    return Report("Against the paper's protocol", standing(folder, len(table)), sections)


def standing(folder: RunFolder, finished: int) -> str:
    """How much of the run there is, and which cells are not whole."""
    text = f"{finished:,} of {count(len(planned_trials(folder)), 'planned trial')} have finished."
    steps = [one.step for one in missing_trials(folder)]
    cells = dict.fromkeys(cell_name(s.model, s.task, s.data_fraction) for s in steps)
    return text + (f" Not whole: {', '.join(cells)}." if cells else "")


# Gain: naive against de-biased


def gain_section(results: Results) -> Section:
    """What picking the best ratio by eye would have claimed."""
    known = [g for g in results.gains if g.naive is not None and g.debiased.value is not None]
    if not known:
        return Section("gain", "Gain", [Text("Not to be had: no pair has two seeds yet.")])
    means = [
        np.mean([value for value in values if value is not None])
        for values in zip(*((g.naive, g.null, g.debiased.value) for g in known), strict=True)
    ]
    of = f"of {len(known)}"
    words = [
        f"Best of all ratios, chosen and measured on the same runs: above 0 on "
        f"{sum((g.naive or 0) > 0 for g in known)} {of} pairs, mean {signed(means[0])} points.",
        f"What noise alone gives that way: mean {signed(means[1])} points.",
        f"De-biased: mean {signed(means[2])} points; the interval lies above 0 on "
        f"{sum(g.found for g in known)} {of} pairs, below 0 on "
        f"{sum(g.debiased.high is not None and g.debiased.high < 0 for g in known)}.",
    ]
    caption = "Gain of the best ratio over the dense model, in points"
    return Section("gain", "Gain", [Items(words), gain_table(caption, results.gains)])


# Axis: encoder-only against whole model


def axis_section(table: pd.DataFrame) -> Section:
    """The same curves on both axes, and what size seems to do on each."""
    both = {axis: curves(table, axis=axis) for axis in AXES}
    falls = {axis: [collapse(curve) for curve in both[axis]] for axis in AXES}
    if not both["x"]:
        return Section("axis", "Axis", [Text("Not to be had: no winning ticket yet.")])
    rows = [
        [
            named_cell(one),
            share(float(np.mean(whole.x_L / one.x_L))),
            *(share(best_level(curve)) for curve in (one, whole)),
            *estimated(falls["x"][i], share),
            *estimated(falls["x_model"][i], share),
        ]
        for i, (one, whole) in enumerate(zip(both["x"], both["x_model"], strict=True))
    ]
    headers = [CELL_HEADER, "Encoder's share of the weights", "Best at, encoder"]
    headers += ["Best at, whole model", "Collapse, encoder", "95 % interval"]
    headers += ["Collapse, whole model", "95 % interval"]
    caption = "Best ratio and collapse point (one pooled standard deviation) on both axes"
    note = "Intervals over seeds. Removed: of the prunable encoder weights, or of all weights."
    blocks: list[Block] = [Text(note), Table(caption, "lrrrrlrl", headers, rows)]
    return Section("axis", "Axis", [*blocks, _laws_table(both, falls)])


def collapse(curve: Curve) -> Estimate:
    """First x with d(x) below minus one pooled standard deviation."""
    delta = pooled_deviation(curve) if curve.reason is None else None
    return collapse_point(curve.x_L, level_estimates(curve), delta, 0.95)


def best_level(curve: Curve) -> float | None:
    """Where the mean difference to the dense model is largest."""
    known = np.isfinite(curve.mean_L)
    return float(curve.x_L[np.nanargmax(curve.mean_L)]) if known.any() else None


def _laws_table(both: Mapping[Axis, list[Curve]], falls: Mapping[Axis, list[Estimate]]) -> Table:
    """The size law of the collapse point, on each axis and share of the data."""
    rows = []
    for fraction in dict.fromkeys(curve.data_fraction for curve in both["x"]):
        for axis, name in AXES.items():
            found = [
                LawPoint(c.model, c.parameters, c.task, None if e.high is None else e.value)
                for c, e in zip(both[axis], falls[axis], strict=True)
                if c.data_fraction == fraction
            ]
            law = log_law(found, "collapse_sd")
            rows.append([name, percent(fraction), law.kind, str(law.points),
                         *estimated(law.slope, signed), p_value(law.p_permutation)])  # fmt: skip
    headers = ["Axis", "Data", "Kind", "Points", "Change", "95 % interval", "p"]
    name = LAW_NAMES["collapse_sd"].partition(" (")[0]
    caption = f"{name} by model size, in % of the axis per tenfold parameters (two sizes: larger"
    return Table(f"{caption} minus smaller)", "llrrrlr", headers, rows)


# Scores: token against example


def scores_section(
    folder: RunFolder, table: pd.DataFrame, results: Results, token_run: Path | None
) -> Section:
    """Tickets and trained scores of both granularities, where both runs have them."""
    if token_run is None:
        text = "Not measured: no run with granularity token was given (--token-run)."
        return Section("scores", "Scores", [Text(text)])
    other = open_run(token_run)
    pairs = list(_pairs(folder, other))
    if not pairs:
        text = "Not to be had: the two runs have no tickets from the same dense models."
        return Section("scores", "Scores", [Text(text)])
    blocks = [
        Text(standing(other, len(finished := finished_trials(other)))),
        _ranks_table(folder, other, pairs),
        _overlap_table(folder, other, pairs, results),
        _trained_table(table, in_points(finished)),
    ]
    return Section("scores", "Scores", blocks)


def _pairs(folder: RunFolder, other: RunFolder) -> Iterator[tuple[Step, Step, str, str]]:
    """Tickets of one dense model and ratio: (ours, the other's, ids of their scores)."""
    ours, theirs = _winning(folder), _winning(other)
    for key in ours:
        if key in theirs:
            yield ours[key][0], theirs[key][0], ours[key][1], theirs[key][1]


def _winning(folder: RunFolder) -> dict[tuple[str | None, float], tuple[Step, str]]:
    """Winning tickets that are there, by scored dense trial and ratio, with their scores' ids."""
    steps = {step.id: step for step in read_manifest(folder)}
    found = {}
    for step in steps.values():
        if step.step == "ticket" and step.kind == "winning" and folder.ticket(step.id).is_file():
            scores = steps[step.needs[0]]
            found[scores.dense, step.ratio] = (step, scores.id)
    return found


def _ranks_table(
    folder: RunFolder, other: RunFolder, pairs: Sequence[tuple[Step, Step, str, str]]
) -> Table:
    """Rank correlation of normalised scores over a model's units."""
    found: dict[tuple[Cell, str], list[float]] = {}
    for step, _, ours, theirs in {pair[2]: pair for pair in pairs}.values():
        one, two = (
            load_scores(home.score(i) / "scores.safetensors").normalized("layer")
            for home, i in ((folder, ours), (other, theirs))
        )
        for unit, score_LN in one.items():
            rho = stats.spearmanr(score_LN.ravel(), two[unit].ravel()).statistic
            found.setdefault((_cell(step), unit), []).append(float(rho))
    rows = [
        [cell_name(*cell), unit, str(len(rhos)), *estimated(mean_interval(rhos), plain)]
        for (cell, unit), rhos in found.items()
    ]
    headers = [CELL_HEADER, "Units", "Dense models", "Spearman", "95 % interval"]
    return Table("Rank correlation of token and example scores", "llrrl", headers, rows)


def _overlap_table(
    folder: RunFolder,
    other: RunFolder,
    pairs: Sequence[tuple[Step, Step, str, str]],
    results: Results,
) -> Table:
    """Overlap of the kept units; beside it that of two seeds' tickets, and chance."""
    found: dict[tuple[Cell, float, str], list[tuple[float | None, float | None]]] = {}
    for step, twin, _, _ in pairs:
        masks = [
            masks_of(read_json(path), str(path))
            for path in (folder.ticket(step.id), other.ticket(twin.id))
        ]
        for one in agreement(masks):
            values = (one.iou_pairs.value, one.iou_chance)
            found.setdefault((_cell(step), step.ratio, one.unit), []).append(values)
    seeds = {
        (cell, ratio, one.unit): one.iou_pairs.value for cell, ratio, one in results.agreements
    }
    rows = [
        [
            cell_name(*key[0]),
            f"{key[1]:g}",
            key[2],
            *estimated(mean_interval([iou for iou, _ in values if iou is not None]), plain),
            plain(seeds.get(key)),
            plain(values[0][1]),
        ]
        for key, values in found.items()
    ]
    headers = [CELL_HEADER, "Ratio", "Units", "Overlap", "95 % interval", "Between seeds"]
    caption = "Kept by both over kept by either: tickets from token and from example scores"
    return Table(caption, "lrlrlrr", [*headers, "By chance"], rows)


def _trained_table(ours: pd.DataFrame, theirs: pd.DataFrame) -> Block:
    """Score after fine-tuning: token minus example, paired by seed."""
    second = {named_cell(curve): curve for curve in curves(ours)}
    both = [(curve, second[named_cell(curve)]) for curve in curves(theirs)
            if named_cell(curve) in second]  # fmt: skip
    if not both:
        return Text("No ticket from token scores has been trained yet.")
    rows = []
    for token, example in both:
        found = contrast(token, example)
        cells = [named_cell(token), str(found.seeds)]
        whole = "mean over the ratios"
        rows.append([*cells, whole, *estimated(found.area, signed), DASH])
        rows += [
            [*cells, f"{one.ratio:g}", *estimated(one.difference, signed), p_value(one.p_adjusted)]
            for one in found.levels
        ]
    headers = [CELL_HEADER, "Seeds", "Ratio", "Difference", "95 % interval", "p (Holm)"]
    return Table("Trained tickets, token minus example, in points", "lrrrlr", headers, rows)


def _cell(step: Step) -> Cell:
    return step.model, step.task, step.data_fraction


# Random tickets: with replacement against exact counts


def random_section(folder: RunFolder, table: pd.DataFrame) -> Section:
    """How many units k draws with replacement hit, and what the difference is worth."""
    blocks: list[Block] = [_paper_table()]
    rows = [row for model, mine in table.groupby("model", sort=False)
            for row in _model_rows(folder, str(model), mine)]  # fmt: skip
    if not rows:
        return Section("random", "Random", [*blocks, Text("No random ticket has been trained.")])
    headers = ["Model", "Ratio", "Removed, exact", "Removed, with replacement", "Simulated"]
    headers += ["Random to dense", "With replacement", "Flattered by", "95 % interval"]
    caption = "Random tickets: share of the encoder that goes, and mean score to dense in points"
    note = (
        "With replacement: n (1 - (1 - 1/n)^k) of n units go when k are drawn. Scores there are "
        "read off the measured curve of exact random tickets between its levels, mean over tasks; "
        "intervals over seeds. What flatters the control hides as much of a winning ticket's lead."
    )
    table_ = Table(caption, "lrrrrrrrl", headers, rows)
    return Section("random", "Random", [*blocks, Text(note), table_])


def distinct(units: int, drawn: int) -> float:
    """Expected number of different units among `drawn` with replacement."""
    return units * (1 - (1 - 1 / units) ** drawn)


def simulated(units: int, drawn: int) -> tuple[float, float]:
    """Mean and standard deviation of that number, over DRAWS draws."""
    draw = np.random.default_rng(0)
    hits = [len(np.unique(draw.integers(units, size=drawn))) for _ in range(DRAWS)]
    return float(np.mean(hits)), float(np.std(hits, ddof=1))


def _paper_table() -> Table:
    """BERT-base with whole FFN blocks, at the levels of the paper's scripts."""
    rows = []
    for level in PAPER_LEVELS:
        row = []
        for units, drawn in zip(PAPER_UNITS.values(), level, strict=True):
            mean, spread = simulated(units, drawn)
            row += [f"{drawn} of {units}", f"{distinct(units, drawn):.1f}",
                    f"{mean:.1f} ± {spread:.1f}"]  # fmt: skip
        rows.append(row)
    headers = list(itertools.chain(*([unit, "By formula", "Simulated"] for unit in PAPER_UNITS)))
    caption = "BERT-base at the eight levels of the paper's scripts, units drawn with replacement"
    return Table(f"{caption} (mean ± standard deviation over draws)", "rrrrrr", headers, rows)


def _model_rows(folder: RunFolder, model: str, table: pd.DataFrame) -> Iterator[list[str]]:
    """One row per ratio of a model's random tickets, over its tasks."""
    random = curves(table, ("random",))
    weights = _weights(table) if random else {}
    for ratio in sorted({ratio for curve in random for ratio in curve.ratios}):
        rows = table[(table["kind"] == "random") & (table["ratio"] == ratio)]
        ticket = read_json(folder.ticket(str(rows["ticket"].iloc[0])))
        exact = float(rows["x"].mean())
        drawn = {
            unit: (distinct(total, ticket["removed"][unit]),
                   *simulated(total, ticket["removed"][unit]))
            for unit, total in ticket["total"].items()
        }  # fmt: skip
        whole = sum(weights[unit] * total for unit, total in ticket["total"].items())
        expected, mean = (
            sum(weights[unit] * values[i] for unit, values in drawn.items()) / whole for i in (0, 1)
        )
        at = [_read_off(random, x) for x in (exact, expected)]
        yield [
            model,
            f"{ratio:g}",
            percent(exact),
            percent(expected),
            percent(mean),
            *(
                points(float(np.mean(values)), signed=True) if len(values) else DASH
                for values in at
            ),
            *estimated(mean_interval(at[1] - at[0]), signed),
        ]


def _weights(table: pd.DataFrame) -> dict[str, float]:
    """Weights of one unit, per type: from what the tickets lost of units and of weights."""
    units = [unit for unit in UNITS if table[unit].nunique() > 1]
    dense = table[table["kind"] == "dense"].iloc[0]
    lost = (dense[[*units, "parameters_left"]] - table[[*units, "parameters_left"]]).astype(float)
    found, _, rank, _ = np.linalg.lstsq(lost[units], lost["parameters_left"])
    if rank < len(units):
        raise InputError("the run's tickets do not tell the weights of its unit types apart")
    return dict(zip(units, found, strict=True))


def _read_off(random: Sequence[Curve], x: float) -> np.ndarray:
    """Difference to dense at `x`, between levels on a straight line: mean over tasks, per seed.

    Only seeds that have every level in every task.
    """
    seeds = set.intersection(*({*curve.seeds} for curve in random))
    found = []
    for seed in sorted(seeds):
        lines = [curve.difference_SL[curve.seeds.index(seed)] for curve in random]
        if all(np.isfinite(line).all() for line in lines):
            ends = zip(random, lines, strict=True)
            found.append(np.mean([np.interp(x, [0, *c.x_L], [0, *line]) for c, line in ends]))
    return np.array(found)


if __name__ == "__main__":
    main()
