"""The section about gain: each number with its interval, or why there is none."""

import contextlib
import math
from collections.abc import Sequence

from bigtickets.analysis.results import Results
from bigtickets.analysis.sections.shown import gain_picture
from bigtickets.analysis.statistics.gain import Gain, TasksGain
from bigtickets.analysis.statistics.power import seeds_needed
from bigtickets.analysis.statistics.transition import POINT, Transition
from bigtickets.analysis.writing.blocks import Block, Gallery, Items, Section, Table, Text
from bigtickets.analysis.writing.cells import (
    CELL_HEADER,
    YES,
    estimated,
    in_units,
    named_cell,
    signed,
)
from bigtickets.analysis.writing.words import (
    DASH,
    VALUES,
    cell_name,
    count,
    kind_name,
    p_value,
    percent,
    points,
)
from bigtickets.errors import InputError

OTHER_GAINS = "The same gain on the loss, and on the score between majority class (0) and dense (1)"
OTHERS_NOTE = (
    "Evaluation loss in nats (squared error where the label is a number), its sign turned: + is "
    "better everywhere. Rescaled: 0 is the majority class, 1 the mean dense model, both taken as "
    "known, so it is the gain of the score in other units, to be compared between tasks."
)
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
    if results.other_gains:
        blocks += [Text(OTHERS_NOTE, small=True), _other_gains_table(results.other_gains)]
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
            _interval_over(one),
            YES[one.found],
        ]
        for one in gains
    ]
    headers = [CELL_HEADER, "Best at", "De-biased", "95 % interval", "Naive", "Noise alone", "p"]
    return Table(caption, "lrrlrrrrll", [*headers, "Seeds", "Interval over", "Found"], rows)


def _other_gains_table(gains: Sequence[Gain]) -> Table:
    """The gain on loss and rescaled score, in their own units."""
    rows = [
        [
            named_cell(one),
            VALUES[one.value],
            *estimated(one.debiased, in_units),
            in_units(one.naive),
            in_units(one.null),
            p_value(one.p_value),
            _interval_over(one),
            YES[one.found],
        ]
        for one in sorted(gains, key=lambda g: (g.parameters, g.model, g.task, g.data_fraction))
    ]
    headers = [CELL_HEADER, "Measured by", "De-biased", "95 % interval", "Naive", "Noise alone"]
    headers += ["p", "Interval over", "Found"]
    return Table(OTHER_GAINS, "llrlrrrll", headers, rows, folded=len(rows) > 12)


def _interval_over(one: Gain) -> str:
    """What the de-biased gain's interval is over, if there is one."""
    return " and ".join(one.over) if one.debiased.low is not None else DASH


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
