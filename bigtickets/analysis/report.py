"""The report of a run: table, figures, one page and its Markdown, from the records alone."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bigtickets.analysis.results import Results, analyse
from bigtickets.analysis.sections import bydata, bysize, controls, evidence, origin, phases, shown
from bigtickets.analysis.sections.answer import answer
from bigtickets.analysis.sections.means import mean_scores
from bigtickets.analysis.table import (
    in_points,
    missing_trials,
    planned_trials,
    read_table,
    write_tables,
)
from bigtickets.analysis.writing.blocks import (
    Block,
    Gallery,
    Items,
    Lead,
    Picture,
    Report,
    Section,
    Text,
)
from bigtickets.analysis.writing.markdown import markdown
from bigtickets.analysis.writing.page import page
from bigtickets.analysis.writing.terminal import summary_table
from bigtickets.analysis.writing.words import count, kind_name, listed, percent, size
from bigtickets.errors import BigticketsError, InputError
from bigtickets.files import write_bytes
from bigtickets.study.folder import RunFolder
from bigtickets.study.parsing import load_yaml

__all__ = ["ReportPaths", "build_report", "finished_trials", "summary_table"]

HOW_TO_READ = (
    "Mean score at each ratio with its 95 % interval over seeds (Student's t; an interval of very "
    "few seeds may leave the frame). Small marks beside a mean are its trials, crosses the "
    "degenerate ones. The dense model is the line across, with its interval as a band. Shades are "
    "the phases of the winning tickets, as in the table below: I better (blue), II as good, III "
    "worse (grey)."
)
DIFFERENCES = (
    "Winning tickets of all models: mean difference to the dense model of the same seed, with its "
    "95 % interval, which may leave the frame."
)
KEPT = (
    "Squares are attention heads: full ones stay, pale ones go; a tone in between says how many "
    "of several tickets keep the head. Lines are shares of the neurons that stay in each layer."
)


@dataclass(frozen=True)
class ReportPaths:
    """What was written."""

    html: Path
    markdown: Path
    csv: Path
    parquet: Path
    figures: tuple[Path, ...]


def build_report(folder: RunFolder) -> ReportPaths:
    """Write RUN/report anew; works on an unfinished run and says what is missing.

    InputError when no trial has finished; DamagedError when a record is broken.
    """
    table = finished_trials(folder)
    report = compose(folder, table)
    home = folder.report
    paths = ReportPaths(
        html=home / "index.html",
        markdown=home / "report.md",
        csv=home / "table.csv",
        parquet=home / "table.parquet",
        figures=tuple(_write_figures(home / "figures", report.pictures)),
    )
    write_tables(table, paths.csv, paths.parquet)
    write_bytes(paths.markdown, markdown(report).encode())
    write_bytes(paths.html, page(report).encode())
    return paths


def finished_trials(folder: RunFolder) -> pd.DataFrame:
    """The table; InputError if it is empty."""
    table = read_table(folder)
    if not len(table):
        raise InputError(
            f"{folder.root}: no trial has finished yet, so there is nothing to report; "
            f"see `bigtickets status {folder.root}`, or go on with `bigtickets run`"
        )
    return table


def compose(folder: RunFolder, table: pd.DataFrame) -> Report:
    """The report's content: the answer first, then what it rests on."""
    natural, table = table, in_points(table)
    levels, results = mean_scores(table), analyse(folder, table)
    missing, planned = missing_trials(folder), len(planned_trials(folder))
    name = study_name(folder)
    sections = [
        _answer_section(results, table, planned),
        _curves_section(table, levels, results),
        evidence.gain_section(results),
        phases.phases_section(results),
        controls.controls_section(results),
        bysize.size_section(results),
        *([bydata.data_section(results, table)] if results.data_laws else []),
        _kept_section(folder, table, results),
        origin.completeness(table, missing, planned),
        origin.numbers(levels),
        origin.provenance(folder, table),
        origin.downloads(natural, name),
    ]
    return Report(f"Super tickets: {name}", subtitle(table), sections)


def study_name(folder: RunFolder) -> str:
    """The study's own name; the folder's if the study file does not tell."""
    try:
        return str(load_yaml(folder.study_yaml).get("study") or folder.root.name)
    except BigticketsError:
        return folder.root.name


def subtitle(table: pd.DataFrame) -> str:
    """What was studied, in one line."""
    sizes = sorted(table["parameters"].unique())
    span = size(sizes[0]) + (f" to {size(sizes[-1])}" if len(sizes) > 1 else "")
    fractions = sorted(table["data_fraction"].unique(), reverse=True)
    shares = (
        "" if fractions == [1.0] else f", {listed([percent(f) for f in fractions])} of the data"
    )
    kinds = [kind_name(k) for k in table["kind"].unique() if k != "dense"]
    return (
        f"{count(table['model'].nunique(), 'model')} ({span} parameters), "
        f"{count(table['task'].nunique(), 'task')}{shares}, "
        f"{count(table['seed'].nunique(), 'seed')}; tickets: {listed(kinds) or 'none yet'}"
    )


def _answer_section(results: Results, table: pd.DataFrame, planned: int) -> Section:
    """The answer, and what to hold against it."""
    notes = []
    if len(table) < planned:
        left = planned - len(table)
        notes.append(f"Unfinished: {count(left, 'planned trial has', 'planned trials have')} "
                     f"no record yet ({len(table):,} of {planned:,} have).")  # fmt: skip
    flagged = int(table["degenerate"].notna().sum())
    if flagged:
        notes.append(f"{count(flagged, 'trial is', 'trials are')} degenerate; they are counted in.")
    seeds = table["seed"].nunique()
    if any(one.found for one in results.gains) and len(results.gains) > 1:
        notes.append("Each pair's interval stands by itself: by chance alone about 1 in 40 lies "
                     "above 0.")  # fmt: skip
    if seeds < 5:
        notes.append(f"{count(seeds, 'seed')}: intervals are wide, and a missing effect proves "
                     "little." if seeds > 1 else "One seed: no interval can be had.")  # fmt: skip
    blocks: list[Block] = [Lead(answer(results))]
    return Section("answer", "Answer", [*blocks, Items(notes)] if notes else blocks)


def _curves_section(table: pd.DataFrame, levels: pd.DataFrame, results: Results) -> Section:
    blocks: list[Block] = [Text(HOW_TO_READ, small=True)]
    if modules := origin.metric_modules(table):
        blocks.append(modules)
    by_cell = {(t.model, t.task, t.data_fraction): t.phases for t in results.transitions}
    blocks += [Gallery(pictures) for pictures in shown.curve_pictures(table, levels, by_cell)]
    if models := list(shown.models_pictures(levels)):
        blocks += [Text(DIFFERENCES, small=True), Gallery(models)]
    return Section("curves", "Curves", blocks)


def _kept_section(folder: RunFolder, table: pd.DataFrame, results: Results) -> Section:
    wide, narrow = shown.kept_pictures(folder, table)
    blocks: list[Block] = [Text(KEPT if wide or narrow else "No winning ticket yet.", small=True)]
    blocks += [Gallery(wide, "wide")] if wide else []
    blocks += [Gallery(narrow)] if narrow else []
    return Section(
        "kept", "Which units stay", [*blocks, controls.agreement_table(results.agreements)]
    )


def _write_figures(home: Path, pictures: list[Picture]) -> list[Path]:
    """Each figure as SVG and PNG; figures of an earlier report that are no more are removed."""
    written = []
    for picture in pictures:
        for ending, content in (("svg", picture.svg.encode()), ("png", picture.png)):
            path = home / f"{picture.name}.{ending}"
            write_bytes(path, content)
            written.append(path)
    for old in {*home.glob("*.svg"), *home.glob("*.png")} - set(written):
        old.unlink(missing_ok=True)
    return written
