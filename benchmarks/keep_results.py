"""From a finished run to what the repository keeps of it: one folder of a few megabytes.

    python benchmarks/keep_results.py RUN docs/results/size-ladder

Writes into the folder, anew each time, and only whole runs unless --unfinished is given:

* README.md         the report's answer, figures and tables, without what only a run folder has
* trials.parquet    one row per trial, every column of the report's table but the host
* tickets.parquet   one row per ticket: what it was cut from, counts, fractions, and its masks
* figures/*.svg     curves, gain and size; with --heatmaps also which units stay

A mask is a `bytes` per unit type: `numpy.unpackbits(numpy.frombuffer(mask, "uint8"))`, the first
`layers` x `units` of it, layer after layer; 1 is a unit that stays.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bigtickets.analysis.report import compose, finished_trials, study_name
from bigtickets.analysis.sections.kept import masks_of
from bigtickets.analysis.table import planned_trials
from bigtickets.analysis.writing.blocks import Block, Gallery, Items, Report, Section
from bigtickets.analysis.writing.markdown import markdown
from bigtickets.analysis.writing.words import count, listed
from bigtickets.errors import InputError
from bigtickets.files import read_json, write_bytes
from bigtickets.study.folder import RunFolder, open_run
from bigtickets.study.state import read_manifest

HEATMAPS = "kept"
RESULTS = ("answer", "curves", "gain", "phases", "controls", "size", "data")
SECTIONS = (*RESULTS, HEATMAPS, "completeness")
"""Of the report; the others are lists that the two tables hold, or addresses in the run folder."""
LARGEST_MB = 3.0


def main() -> None:
    """Write the folder; exit code 2 if the run is not whole or the folder would be too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("into", type=Path, help="for example docs/results/size-ladder")
    parser.add_argument("--unfinished", action="store_true", help="also of a run with gaps")
    parser.add_argument("--heatmaps", action="store_true", help="figures of the units that stay")
    options = parser.parse_args()
    try:
        sizes = keep(options.run, options.into, options.unfinished, options.heatmaps)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for name, size in sizes.items():
        print(f"{size / 1e3:9.1f} kB  {name}")
    print(f"{sum(sizes.values()) / 1e6:9.2f} MB  {options.into}")


def keep(run: Path, into: Path, unfinished: bool, heatmaps: bool) -> dict[str, int]:
    """Bytes of each file written; figures of an earlier time that are no more are removed."""
    folder = open_run(run)
    table = finished_trials(folder)
    planned = len(planned_trials(folder))
    if len(table) < planned and not unfinished:
        raise InputError(
            f"{run}: {len(table)} of {planned} trials have finished; --unfinished keeps it"
        )
    report = shortened(compose(folder, table), heatmaps)
    report = replace(report, sections=[*report.sections, origin(folder, table)])
    files = {
        "README.md": markdown(report, ending="svg").encode(),
        "trials.parquet": parquet(table.drop(columns=["host"])),
        "tickets.parquet": parquet(tickets_table(folder)),
        **{f"figures/{picture.name}.svg": picture.svg.encode() for picture in report.pictures},
    }
    if sum(map(len, files.values())) > LARGEST_MB * 1e6:
        total = sum(map(len, files.values())) / 1e6
        raise InputError(f"{into}: {total:.1f} MB, more than {LARGEST_MB:g}; nothing is written")
    for name, content in files.items():
        write_bytes(into / name, content)
    for old in {*(into / "figures").glob("*.svg")} - {into / name for name in files}:
        old.unlink()
    return {name: len(content) for name, content in files.items()}


def shortened(report: Report, heatmaps: bool) -> Report:
    """The sections that are kept, those of the units that stay without figures unless asked."""
    sections = [one for one in report.sections if one.key in SECTIONS]
    if not heatmaps:
        sections = [_without_figures(one) if one.key == HEATMAPS else one for one in sections]
    return replace(report, sections=sections)


def _without_figures(section: Section) -> Section:
    blocks: Sequence[Block] = [b for b in section.blocks[1:] if not isinstance(b, Gallery)]
    return replace(section, blocks=blocks)


def origin(folder: RunFolder, table: pd.DataFrame) -> Section:
    """What it was made with, how long it took, and what the files beside it are."""
    versions = read_json(folder.environment)["versions"]
    devices = sorted(table["device"].dropna().unique())
    facts = [
        f"Study {study_name(folder)}; commits {listed(sorted(table['commit'].dropna().unique()))}.",
        f"{listed([f'{name} {version}' for name, version in versions.items()])}.",
        f"{count(len(table), 'trial')} took {table['total_s'].sum() / 3600:.1f} hours, added up "
        f"over the processes that ran side by side, on {listed(devices)}; finished between "
        f"{table['finished'].min()} and {table['finished'].max()}.",
        "trials.parquet has the id of every record, tickets.parquet the units that each ticket "
        "keeps (benchmarks/keep_results.py says how).",
    ]
    return Section("origin", "Where it comes from", [Items(facts)])


def tickets_table(folder: RunFolder) -> pd.DataFrame:
    """One row per ticket that is there."""
    steps = [step for step in read_manifest(folder) if step.step == "ticket"]
    rows = []
    for step in steps:
        path = folder.ticket(step.id)
        if path.is_file():
            ticket = read_json(path)
            place = {"model": step.model, "task": step.task, "data_fraction": step.data_fraction}
            rows.append({"id": step.id, **place, **_ticket_row(ticket, str(path))})
    return pd.DataFrame(rows)


def _ticket_row(ticket: dict[str, Any], source: str) -> dict[str, Any]:
    row = {key: ticket[key] for key in ("kind", "ratio", "seed", "hash")}
    row |= {"scores": ticket["provenance"]["scores"]}
    row |= {f"removed_{axis}": value for axis, value in ticket["fractions"].items()}
    for unit, kept_LN in masks_of(ticket, source).items():
        row |= {f"{unit}_layers": kept_LN.shape[0], f"{unit}_units": kept_LN.shape[1]}
        row |= {f"{unit}_removed": ticket["removed"][unit]}
        row |= {f"{unit}_kept": np.packbits(kept_LN).tobytes()}
    return row


def parquet(table: pd.DataFrame) -> bytes:
    """The table as parquet, compressed."""
    content = io.BytesIO()
    table.to_parquet(content, index=False, compression="zstd")
    return content.getvalue()


if __name__ == "__main__":
    main()
