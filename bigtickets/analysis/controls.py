"""The sections about controls, model size, and agreement between seeds."""

from collections.abc import Callable, Sequence

from bigtickets.analysis.agreement import Agreement
from bigtickets.analysis.blocks import Block, Gallery, Items, Section, Table, Text
from bigtickets.analysis.cells import CELL_HEADER, YES, estimated, named_cell, plain, signed
from bigtickets.analysis.contrast import Contrast
from bigtickets.analysis.evidence import gain_table
from bigtickets.analysis.results import Cell, Law, Results
from bigtickets.analysis.shown import size_pictures
from bigtickets.analysis.words import (
    DASH,
    cell_name,
    kind_name,
    p_value,
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


def size_section(results: Results) -> Section:
    """Gain, collapse and sharpness against the size of the model."""
    if not results.laws:
        text = "Not to be had: one model says nothing about size."
        return Section("size", "Size", [Text(text)])
    models = max(len({point.model for point in law.points}) for law in results.laws)
    note = (
        "Two sizes are a difference, larger minus smaller, and not a trend."
        if models == 2
        else "Change per tenfold parameters, tasks as random effect; p: size labels permuted over "
        "the models, with the least value that so few sizes can give."
    )
    rows = [_law_row(law) for law in results.laws]
    headers = ["What", "Models", "Tasks", "Kind", "Change", "95 % interval", "Over tasks and seeds"]
    table = Table("Model size", "lrrlrllrrl", [*headers, "p", "Least p", "Found"], rows)
    left_out = [
        f"{LAW_NAMES[law.law.what]}, {model} on {task}: {why}."
        for law in results.laws
        for model, task, why in law.law.left_out
    ]
    blocks: list[Block] = [Text(note, small=True), Gallery(size_pictures(results)), table]
    if left_out:
        blocks += [Text("Left out, and not at random:"), Items(left_out)]
    return Section("size", "Size", blocks)


LAW_NAMES = {
    "gain": "De-biased gain (points)",
    "collapse_sd": "Collapse point (% of the encoder)",
    "sharpness": "Sharpness (1 / width of the fall)",
}


def _law_row(one: Law) -> list[str]:
    law = one.law
    shown: Callable[..., str] = signed if law.what != "sharpness" else plain
    share = "" if one.data_fraction == 1 else f", {percent(one.data_fraction)} of the data"
    return [
        LAW_NAMES[law.what] + share,
        str(len(law.models)),
        str(len(law.tasks)),
        law.kind,
        *estimated(law.slope, shown),
        estimated(law.bootstrap, shown)[1] if law.kind == "trend" else DASH,
        p_value(law.p_permutation),
        p_value(law.p_smallest),
        YES[law.found],
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
