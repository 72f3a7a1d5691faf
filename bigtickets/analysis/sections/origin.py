"""What a report rests on: which trials are there, which are not, and where they come from."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bigtickets.analysis.table import CELL, MissingTrial, csv_text
from bigtickets.analysis.writing.blocks import (
    Block,
    Code,
    Embedded,
    Items,
    Links,
    Section,
    Table,
    Text,
)
from bigtickets.analysis.writing.words import (
    DEGENERATE,
    cell_name,
    count,
    interval,
    kind_name,
    listed,
    percent,
    points,
)
from bigtickets.files import read_json
from bigtickets.study.folder import RunFolder
from bigtickets.study.tasks import MODULE

RULE = (
    "A trial is degenerate if its loss or score is not finite, if it predicts one class (or one "
    "number) for every example, or if its score is at or below that of always answering the "
    "majority class. Degenerate trials are counted here and stay in every mean and interval, as "
    "far as they have a score."
)


def completeness(table: pd.DataFrame, missing: Sequence[MissingTrial], planned: int) -> Section:
    """Missing cells and degenerate runs, with the rule."""
    done = len(table)
    words = f"{done:,} of {planned:,} planned trials have finished."
    if missing:
        states = pd.Series([m.state for m in missing]).value_counts()
        words += f" Without a record: {listed([f'{n:,} {s}' for s, n in states.items()])}."
        words += " Nothing is filled in for them: levels have fewer seeds."
    blocks: list[Block] = [Text(words)]
    if missing:
        blocks.append(_missing_table(missing))
    flagged = table[table["degenerate"].notna()]
    blocks.append(Text(f"{count(len(flagged), 'trial is', 'trials are')} degenerate. {RULE}"))
    if len(flagged):
        blocks.append(_degenerate_table(flagged))
    return Section("completeness", "Missing and degenerate trials", blocks)


def _missing_table(missing: Sequence[MissingTrial]) -> Table:
    cells: dict[tuple[Any, ...], list[MissingTrial]] = defaultdict(list)
    for one in missing:
        step = one.step
        cell = cell_name(step.model, step.task, step.data_fraction)
        cells[cell, step.kind, step.ratio, one.state, one.why].append(one)
    rows = [
        [
            cell,
            kind_name(kind),
            f"{ratio:g}",
            ", ".join(str(one.step.seed) for one in ones),
            state,
            why,
        ]
        for (cell, kind, ratio, state, why), ones in cells.items()
    ]
    headers = ["Model and task", "Kind", "Ratio", "Seeds", "State", "Why"]
    return Table("Planned trials without a record", "llrlll", headers, rows, len(rows) > 12)


def _degenerate_table(flagged: pd.DataFrame) -> Table:
    groups = flagged.groupby([*CELL, "kind", "ratio", "degenerate"], sort=False)
    rows = [
        [
            cell_name(str(model), str(task), float(fraction)),
            kind_name(str(kind)),
            f"{ratio:g}",
            DEGENERATE.get(str(why), str(why)),
            ", ".join(str(seed) for seed in group["seed"]),
        ]
        for (model, task, fraction, kind, ratio, why), group in groups
    ]
    headers = ["Model and task", "Kind", "Ratio", "Why", "Seeds"]
    return Table("Degenerate trials", "llrll", headers, rows, len(rows) > 12)


def metric_modules(table: pd.DataFrame) -> Block | None:
    """How the tasks are measured whose metric is a module; None where there is none."""
    rows = table[table["metric"].str.startswith(MODULE)].drop_duplicates("task")
    if not len(rows):
        return None
    told = [
        f"{row.task}: {str(row.metric).removeprefix(MODULE)}, 1 of it is "
        f"{row.points:g} {'point' if row.points == 1 else 'points'}"
        for row in rows.itertuples()
    ]
    return Text(
        f"Measured by a metric module: {'; '.join(told)}. Higher is better; what is better when "
        "lower has a minus. Their intervals are over seeds only, not over examples, and in place "
        "of the majority class stands the best constant prediction: the most frequent class, the "
        "classes' frequencies, or the mean of the numbers.",
        small=True,
    )


def numbers(levels: pd.DataFrame) -> Section:
    """All means with their intervals."""
    rows = [_number_row(level) for level in levels.itertuples()]
    headers = ["Model and task", "Kind", "Ratio", "Encoder", "Model", "FLOPs", "n", "Score"]
    headers += ["95 % interval", "To dense", "95 % interval", "Degenerate"]
    note = (
        "Encoder, Model, FLOPs: removed shares of the prunable encoder weights, of all parameters "
        "and of the encoder's forward FLOPs. n: seeds with a score. Scores and differences in "
        "points (score × 100, of a metric module as its task says); intervals are Student's t over "
        "seeds, differences are paired by seed. An interval is not cut at what the metric can "
        "reach: beyond it, few seeds say little."
    )
    table = Table(
        f"All {len(rows)} levels", "llrrrrrrrrrr", headers, rows, folded=len(rows) > 40
    )  # fmt: skip
    return Section("numbers", "Numbers", [Text(note, small=True), table])


def _number_row(level: Any) -> list[str]:
    dense = level.kind == "dense"
    difference = interval(level.difference_low, level.difference_high, signed=True)
    return [
        cell_name(level.model, level.task, level.data_fraction),
        kind_name(level.kind),
        f"{level.ratio:g}",
        percent(level.x),
        percent(level.x_model),
        percent(level.x_flops),
        str(level.n),
        points(level.mean),
        interval(level.low, level.high),
        "" if dense else points(level.difference, signed=True),
        "" if dense else difference,
        str(level.degenerate) if level.degenerate else "",
    ]


def provenance(folder: RunFolder, table: pd.DataFrame) -> Section:
    """Versions, commits, hosts, the study file, and the id of every record."""
    records = [read_json(folder.trial(i) / "record.json") for i in table["id"]]
    seen: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, version in (record.get("versions") or {}).items():
            seen[name].add(str(version))
    facts = [
        f"Versions: {listed([f'{n} ' + ' and '.join(sorted(v)) for n, v in seen.items()])}.",
        f"Commit: {_several(table['commit'])} (a + marks changes that were not committed).",
        f"Hosts: {_several(table['host'])}; devices: {_several(table['device'])}.",
        f"Finished between {table['finished'].min()} and {table['finished'].max()}.",
    ]
    texts: list[Block] = [Items(facts)]
    if folder.study_yaml.is_file():
        study = folder.study_yaml.read_text()
        texts.append(Code("Study file, every default written out", study, "yaml"))
    texts += [_record_table(table), *_other_ids(folder, table)]
    return Section("provenance", "Provenance", texts)


def _several(column: pd.Series) -> str:
    return listed([str(value) for value in sorted(column.dropna().unique())]) or "not recorded"


def _record_table(table: pd.DataFrame) -> Table:
    rows = [
        [row.id, row.label, str(row.ticket) if isinstance(row.ticket, str) else "", str(row.host)]
        for row in table.itertuples()
    ]
    caption = f"Ids of all {len(rows)} trial records"
    return Table(caption, "llll", ["Trial", "What", "Ticket", "Host"], rows, archived=True)


def _other_ids(folder: RunFolder, table: pd.DataFrame) -> list[Table]:
    """Scores that the tickets were cut from."""
    rows = []
    for path in sorted(folder.scores.glob("*/record.json")):
        record = read_json(path)
        stability = record.get("stability") or {}
        words = ", ".join(f"{u} {v:.3f}" for u, v in stability.items() if v is not None)
        rows.append([path.parent.name, str(record.get("label", "")), words])
    if not rows:
        return []
    headers = ["Scores", "What", "Stability"]
    caption = f"Ids of all {len(rows)} importance passes, with the stability of their scores"
    return [Table(caption, "lll", headers, rows, archived=True)]


def downloads(table: pd.DataFrame, study: str) -> Section:
    """The files beside the page, and the table inside it."""
    links = [
        ("table.csv", "table.csv", "one row per trial"),
        ("table.parquet", "table.parquet", "the same, typed"),
        ("report.md", "report.md", "this report as Markdown"),
    ]
    inside = Embedded(
        "table.csv, from inside this page", f"{study}.csv", "text/csv", csv_text(table).encode()
    )
    note = "Figures are beside this page in figures/, as SVG and PNG; each caption links to its own"
    return Section("downloads", "Downloads", [Links(links), inside, Text(note + ".", small=True)])
