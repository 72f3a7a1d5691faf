"""The section about controls, and the table of agreement between seeds."""

from collections.abc import Sequence

from bigtickets.analysis.results import Cell, Results
from bigtickets.analysis.sections.evidence import gain_table
from bigtickets.analysis.statistics.agreement import Agreement
from bigtickets.analysis.statistics.contrast import Contrast
from bigtickets.analysis.writing.blocks import Block, Section, Table, Text
from bigtickets.analysis.writing.cells import CELL_HEADER, estimated, named_cell, plain, signed
from bigtickets.analysis.writing.words import (
    DASH,
    cell_name,
    kind_name,
    percent,
)


def controls_section(results: Results) -> Section:
    """Winning tickets against the other kinds at equal size."""
    if not results.contrasts:
        text = "Not to be had: the study has no other kind of ticket beside the winning ones."
        return Section("controls", "Controls", [Text(text)])
    note = (
        "Difference between two kinds of ticket of the same seed and ratio, in points. The mean "
        "over the encoder fraction removed is one test per row; single levels are listed where "
        "they differ with p < 0.05 after Holm's correction. Size gap: the largest difference in "
        "the fraction removed between the two at one ratio."
    )
    rows = [
        _contrast_row(one)
        for one in sorted(results.contrasts, key=lambda c: (c.parameters, c.model, c.task))
    ]
    headers = [CELL_HEADER, "Kinds", "Mean difference", "95 % interval", "Ratios that differ"]
    table = Table("Controls", "llrllrr", [*headers, "Seeds", "Size gap"], rows)
    caption = "Gain of the other kinds, treated as if they were super tickets, in points"
    gains = gain_table(caption, results.control_gains, kinds=True)
    return Section("controls", "Controls", [Text(note, small=True), table, gains])


def _contrast_row(one: Contrast) -> list[str]:
    differ = [
        f"{level.ratio:g}"
        for level in one.levels
        if level.p_adjusted is not None and level.p_adjusted < 0.05
    ]
    return [
        named_cell(one),
        f"{kind_name(one.first)} − {kind_name(one.second)}",
        *estimated(one.area, signed),
        ", ".join(differ) or "none",
        str(one.seeds),
        percent(one.size_gap) if one.size_gap is not None else DASH,
    ]


def agreement_table(agreements: Sequence[tuple[Cell, float, Agreement]]) -> Block:
    """Whether seeds keep the same units."""
    if not agreements:
        return Text(
            "Agreement of the tickets of different seeds is not to be had: all seeds share one "
            "ticket per level (importance.seeds: one), or there is one seed."
        )
    rows = [
        [
            cell_name(*cell),
            f"{ratio:g}",
            one.unit,
            f"{one.kept:.0f} of {one.units:,}",
            *estimated(one.iou_pairs, plain),
            plain(one.iou_chance),
            *estimated(one.alpha, plain),
        ]
        for cell, ratio, one in agreements
    ]
    headers = [CELL_HEADER, "Ratio", "Units", "Kept", "Overlap", "95 % interval", "By chance"]
    caption = "Do seeds keep the same units? Overlap: kept by both over kept by either"
    headers += ["Krippendorff's α", "95 % interval"]
    return Table(caption, "lrllrlrrl", headers, rows, folded=len(rows) > 24)
