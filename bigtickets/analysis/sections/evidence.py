"""The sections about gain and collapse: each number with its interval, or why there is none."""

import contextlib
import math
import re
from collections.abc import Sequence

from bigtickets.analysis.results import Results
from bigtickets.analysis.sections.shown import gain_picture
from bigtickets.analysis.statistics.gain import Gain, TasksGain
from bigtickets.analysis.statistics.power import seeds_needed
from bigtickets.analysis.statistics.transition import POINT, Transition
from bigtickets.analysis.writing.blocks import Block, Gallery, Items, Section, Table, Text
from bigtickets.analysis.writing.cells import CELL_HEADER, YES, estimated, named_cell, share, signed
from bigtickets.analysis.writing.words import (
    DASH,
    cell_name,
    count,
    kind_name,
    p_value,
    percent,
    points,
)
from bigtickets.errors import InputError

NOTHING_YET = "Not to be had: no winning ticket has been trained yet."


def gain_section(results: Results) -> Section:
    """De-biased gain with its interval; the naive and the null gain beside it."""
    note = (
        "De-biased: the ratio is chosen on one half of the seeds (and examples) and its gain over "
        "the dense model measured on the other, over all splits. Naive: the best mean difference, "
        "chosen and measured on the same runs. Noise alone: the naive gain that is expected if no "
        "ticket differs from the dense model (levels permuted within seeds), and the p-value of "
        "the naive gain against it. Found: the de-biased interval lies above 0; each row by itself."
    )
    if not results.gains:
        return Section("gain", "Gain of the super ticket", [Text(NOTHING_YET)])
    blocks: list[Block] = [Text(note, small=True)]
    if any(one.naive is not None for one in results.gains):
        blocks.append(Gallery([gain_picture(results.gains)], "wide"))
    blocks.append(gain_table("Gain of the super ticket, in points", results.gains))
    if needed := _seeds_needed(results.transitions):
        blocks.append(Text(needed, small=True))
    if results.tasks_gains:
        blocks.append(_tasks_table(results.tasks_gains))
    if results.no_examples:
        cells = [f"{cell_name(*cell)}: {why}" for cell, why in results.no_examples]
        blocks += [Text("Intervals over seeds only, not over examples, because:"), Items(cells)]
    return Section("gain", "Gain of the super ticket", blocks)


def _seeds_needed(transitions: Sequence[Transition]) -> str:
    """What one point of precision would take, from the spread seen here; empty if it is unknown."""
    seeds = []
    for one in transitions:
        # Dense and pruned runs of a seed share little: the difference has twice the variance.
        spread = math.sqrt(2) * (one.delta_sd or 0.0)
        with contextlib.suppress(InputError):
            seeds.append(seeds_needed(POINT, spread).seeds)
    if not seeds:
        return ""
    low, high = min(seeds), max(seeds)
    many = count(high, "seed") if low == high else f"{low} to {high} seeds"
    return (
        f"With the spread seen here, knowing the difference at one ratio to within ± 1 point takes "
        f"about {many}."
    )


def gain_table(caption: str, gains: Sequence[Gain], kinds: bool = False) -> Table:
    """Gains, a row each; with the kind where there are several."""
    rows = [
        [
            named_cell(one) + (f", {kind_name(one.kind)}" if kinds else ""),
            percent(one.x, 0),
            *estimated(one.debiased, signed),
            points(one.naive, signed=True),
            points(one.null, signed=True),
            p_value(one.p_value),
            str(one.seeds),
            " and ".join(one.over) if one.debiased.low is not None else DASH,
            YES[one.found],
        ]
        for one in gains
    ]
    headers = [CELL_HEADER, "Best at", "De-biased", "95 % interval", "Naive", "Noise alone", "p"]
    return Table(caption, "lrrlrrrrll", [*headers, "Seeds", "Interval over", "Found"], rows)


def _tasks_table(gains: Sequence[TasksGain]) -> Table:
    rows = [
        [
            one.model + ("" if one.data_fraction == 1 else f", {percent(one.data_fraction)}"),
            str(len(one.tasks)),
            *estimated(one.these_tasks, signed),
            estimated(one.new_tasks, signed)[1],
            points(one.naive, signed=True),
            points(one.null, signed=True),
            p_value(one.p_value),
            YES[one.found],
        ]
        for one in gains
    ]
    headers = ["Model", "Tasks", "De-biased", "For these tasks", "For tasks like these", "Naive"]
    caption = "Mean gain over the tasks, in points, with two 95 % intervals"
    return Table(caption, "lrrllrrrl", [*headers, "Noise alone", "p", "Found"], rows)


def phases_section(results: Results) -> Section:
    """Phases, collapse point, slope, width of the fall, break."""
    note = (
        "All in per cent of the encoder weights removed. Phase I: better than the dense model; "
        "II: as good; III: worse. The collapse point is the first place where the mean difference "
        "to the dense model falls below minus delta; delta is one pooled standard deviation "
        "between seeds, or one point. Slope: points per 10 % removed past it. Width: from 90 % to "
        "10 % of a fitted logistic fall. A break counts only if no smooth curve explains it."
    )
    if not results.transitions:
        return Section("phases", "Phases and collapse", [Text(NOTHING_YET)])
    verdicts = [f"{named_cell(one)}: {_in_percent(one.verdict)}." for one in results.transitions]
    return Section(
        "phases",
        "Phases and collapse",
        [
            Text(note, small=True),
            Items(verdicts),
            _collapse_table(results.transitions),
            _fall_table(results.transitions),
            _others_table([*results.transitions, *results.others]),
        ],
    )


def _in_percent(verdict: str) -> str:
    """The sentence with its fractions as this page writes them."""
    return re.sub(r"x = (\d\.\d+)", lambda m: f"{percent(float(m[1]), 0)} removed", verdict)


def _collapse_table(transitions: Sequence[Transition]) -> Table:
    rows = [
        [
            named_cell(one),
            *(percent(w, 0) for w in (one.phases.better, one.phases.as_good, one.phases.worse)),
            points(one.delta_sd),
            *estimated(one.collapse_sd, share),
            *estimated(one.collapse_point, share),
        ]
        for one in transitions
    ]
    headers = [CELL_HEADER, "I", "II", "III", "Delta (points)", "Collapse", "95 % interval"]
    headers += ["Collapse, 1 point", "95 % interval"]
    return Table("Phases and collapse point", "lrrrrrlrl", headers, rows)


def _fall_table(transitions: Sequence[Transition]) -> Table:
    rows = [
        [
            named_cell(one),
            *estimated(one.slope, lambda v, signed=True: points(v / 10, signed)),
            *estimated(one.logistic.width, share),
            *estimated(one.segmented.at, share),
            p_value(one.segmented.p_value),
            YES[one.found],
        ]
        for one in transitions
    ]
    headers = [CELL_HEADER, "Slope", "95 % interval", "Width", "95 % interval", "Break at"]
    caption = "How it falls: slope, width, break"
    return Table(caption, "lrlrlrlrl", [*headers, "95 % interval", "p", "Break found"], rows)


def _others_table(transitions: Sequence[Transition]) -> Table:
    """The collapse on score, loss and rescaled score side by side."""
    names = {"score": "score", "loss": "evaluation loss", "rescaled": "rescaled score"}
    rows = [
        [named_cell(one), names[one.value], *estimated(one.collapse_sd, share), YES[one.found]]
        for one in sorted(transitions, key=lambda t: (t.parameters, t.model, t.task))
    ]
    caption = "The same on the loss, and on the score between majority class (0) and dense (1)"
    headers = [CELL_HEADER, "Measured by", "Collapse", "95 % interval", "Break found"]
    return Table(caption, "llrll", headers, rows, folded=len(rows) > 12)
