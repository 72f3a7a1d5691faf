"""The section about phases and collapse: each number with its interval, or why there is none."""

import re
from collections.abc import Sequence

from bigtickets.analysis.results import Results
from bigtickets.analysis.sections.evidence import NOTHING_YET
from bigtickets.analysis.statistics.estimates import Estimate
from bigtickets.analysis.statistics.transition import Transition
from bigtickets.analysis.writing.blocks import Items, Section, Table, Text
from bigtickets.analysis.writing.cells import CELL_HEADER, YES, estimated, named_cell, share
from bigtickets.analysis.writing.words import VALUES, p_value, percent, points


def phases_section(results: Results) -> Section:
    """Phases, collapse point, slope, width of the fall, break."""
    note = (
        "All in per cent of the encoder weights removed. Phase I: better than the dense model; "
        "II: as good; III: worse. The collapse point is the first place where the mean difference "
        "to the dense model falls below minus delta; delta is one pooled standard deviation "
        "between seeds, or one point. Slope: points per 10 % removed past it. Width: from 90 % to "
        "10 % of a fitted logistic fall. A break counts only if no smooth curve explains it. Whole "
        "model: the same collapse point in per cent of all weights, embeddings included."
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
            _collapse_table(results.transitions, results.whole_model),
            _fall_table(results.transitions),
            _others_table([*results.transitions, *results.others]),
        ],
    )


def _in_percent(verdict: str) -> str:
    """The sentence with its fractions as this page writes them."""
    return re.sub(r"x = (\d\.\d+)", lambda m: f"{percent(float(m[1]), 0)} removed", verdict)


def _collapse_table(transitions: Sequence[Transition], whole_model: Sequence[Estimate]) -> Table:
    rows = [
        [
            named_cell(one),
            *(percent(w, 0) for w in (one.phases.better, one.phases.as_good, one.phases.worse)),
            points(one.delta_sd),
            *estimated(one.collapse_sd, share),
            *estimated(whole, share),
            *estimated(one.collapse_point, share),
        ]
        for one, whole in zip(transitions, whole_model, strict=True)
    ]
    headers = [CELL_HEADER, "I", "II", "III", "Delta (points)", "Collapse", "95 % interval"]
    headers += ["Collapse, whole model", "95 % interval", "Collapse, 1 point", "95 % interval"]
    return Table("Phases and collapse point", "lrrrrrlrlrl", headers, rows)


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
    rows = [
        [named_cell(one), VALUES[one.value], *estimated(one.collapse_sd, share), YES[one.found]]
        for one in sorted(transitions, key=lambda t: (t.parameters, t.model, t.task))
    ]
    caption = "The same on the loss, and on the score between majority class (0) and dense (1)"
    headers = [CELL_HEADER, "Measured by", "Collapse", "95 % interval", "Break found"]
    return Table(caption, "llrll", headers, rows, folded=len(rows) > 12)
