"""The section about model size."""

from collections.abc import Callable

from bigtickets.analysis.results import Law, Results
from bigtickets.analysis.sections.amounts import size_pictures
from bigtickets.analysis.statistics.laws import LogLaw
from bigtickets.analysis.writing.blocks import Block, Gallery, Items, Section, Table, Text
from bigtickets.analysis.writing.cells import YES, estimated, plain, share, signed
from bigtickets.analysis.writing.words import DASH, NOT_HAD, p_value, percent


def size_section(results: Results) -> Section:
    """Gain, collapse and sharpness against the size of the model."""
    if not results.laws:
        text = "Not to be had: one model says nothing about size."
        return Section("size", "Size", [Text(text)])
    models = max(len({point.setting for point in law.points}) for law in results.laws)
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
    if results.collapses:
        blocks += [Text(COLLAPSE_NOTE, small=True), _collapse_table(results)]
    if left_out:
        blocks += [Text("Left out, and not at random:"), Items(left_out)]
    return Section("size", "Size", blocks)


COLLAPSE_NOTE = (
    "Exploratory: do the curves of all sizes fall onto one when x is stretched by a power of the "
    "size about a center? Exponent above 0: sharper with size. Scatter: about the common curve, "
    "0 is none; beside it without stretching, and with the sizes permuted. So few sizes prove no "
    "scaling, whatever the p-value."
)


def _collapse_table(results: Results) -> Table:
    rows = [
        [
            task,
            str(one.sizes),
            plain(one.exponent),
            share(one.center),
            *(_scatter(v) for v in (one.quality, one.quality_unscaled, one.null_quality)),
            p_value(one.p_value) if one.reason is None else f"{NOT_HAD}: {one.reason}",
        ]
        for task, one in results.collapses
    ]
    headers = ["Task", "Sizes", "Exponent", "Center", "Scatter", "Unstretched", "Permuted", "p"]
    return Table("Collapse of the curves of all sizes (exploratory)", "lrrrrrrl", headers, rows)


def _scatter(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


LAW_NAMES = {
    "gain": "De-biased gain (points)",
    "collapse_sd": "Collapse point (% of the encoder)",
    "sharpness": "Sharpness (1 / width of the fall)",
}


def _law_row(one: Law) -> list[str]:
    share = "" if one.data_fraction == 1 else f", {percent(one.data_fraction)} of the data"
    return [LAW_NAMES[one.law.what] + share, *law_cells(one.law)]


def law_cells(law: LogLaw) -> list[str]:
    """How many settings and blocks, the kind of law, its slope with two intervals, its tests."""
    shown: Callable[..., str] = signed if law.what != "sharpness" else plain
    return [
        str(len(law.settings)),
        str(len(law.blocks)),
        law.kind,
        *estimated(law.slope, shown),
        estimated(law.bootstrap, shown)[1] if law.kind == "trend" else DASH,
        p_value(law.p_permutation),
        p_value(law.p_smallest),
        YES[law.found],
    ]
