"""How many seeds a study needs for the precision that it asks for."""

import contextlib
import math
from dataclasses import dataclass

import numpy as np

from bigtickets.analysis.statistics.curves import curves
from bigtickets.analysis.statistics.power import MOST, seeds_needed
from bigtickets.analysis.table import in_points, planned_trials, read_table
from bigtickets.errors import InputError
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import StudySpec
from bigtickets.study.steps import Step

ASSUMED_SD = math.sqrt(2)
"""Points: of a paired difference over seeds where no trial says more. One point for each of the
two scores, as fine-tuned encoders of BERT's size have on middling GLUE tasks."""
ASSURANCE = 0.8
"""Probability with which the seeds give an interval that is narrow enough."""
MOST_TRIALS = 3000
"""Records that are read for it, about: a plan must not take as long as a report."""


@dataclass(frozen=True)
class Seeds:
    """Seeds that a study has, and those that its precision takes."""

    given: int
    needed: int | None
    """None: more than can be counted on."""
    precision: float
    """Asked for: half width of a gain's 95 % interval, points."""
    sd: float
    """Of a paired difference to the dense model, over seeds; points."""
    differences: int
    """Paired differences that `sd` was measured on; 0: it is assumed."""


def seeds_of(study: StudySpec, folder: RunFolder) -> Seeds:
    """What `analysis.precision` takes, by the finished trials of `folder` where there are some."""
    measured, count = _measured_sd(folder)
    sd = 100 * measured if count else ASSUMED_SD
    asked, needed = study.analysis.precision, None
    with contextlib.suppress(InputError):  # beyond what it counts to
        needed = seeds_needed(asked, sd, assurance=ASSURANCE).seeds if sd > 0 else 2
    return Seeds(len(study.seeds), needed, asked, sd, count)


def seeds_line(seeds: Seeds) -> str:
    """One line of the plan."""
    source = f"measured on {seeds.differences} differences" if seeds.differences else "assumed"
    needed = f"needs {seeds.needed}" if seeds.needed else f"needs more than {MOST}"
    return (
        f"seeds: {seeds.given} given; a gain ± {seeds.precision:g} points (95 % interval) {needed} "
        f"at a standard deviation over seeds of {seeds.sd:.2f} points ({source})"
    )


def _measured_sd(folder: RunFolder) -> tuple[float, int]:
    """(standard deviation of paired differences over seeds, pooled over all levels of all tickets;
    differences that it comes from), 0 of them where no level has two seeds."""
    if not folder.manifest.is_file():
        return 0.0, 0
    table = in_points(read_table(folder, _some(planned_trials(folder))))
    kinds = [kind for kind in table["kind"].unique() if kind != "dense"]
    squares, freedom, count = 0.0, 0, 0
    for curve in curves(table, kinds):
        for difference_S in curve.difference_SL.T:
            known_S = difference_S[np.isfinite(difference_S)]
            if len(known_S) > 1:
                squares += float(((known_S - known_S.mean()) ** 2).sum())
                freedom += len(known_S) - 1
                count += len(known_S)
    return (math.sqrt(squares / freedom), count) if count else (0.0, 0)


def _some(trials: list[Step]) -> list[Step]:
    """All if they are few; else whole levels (a kind at a ratio), and what they are compared to."""
    levels = sorted({(t.kind, t.ratio) for t in trials if t.kind != "dense"})
    chosen = set(levels[:: len(trials) // MOST_TRIALS + 1])
    return [t for t in trials if t.kind == "dense" or (t.kind, t.ratio) in chosen]
