"""Figures of gain and collapse point against model size, and against the amount of data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bigtickets.analysis.figures import amount_figure
from bigtickets.analysis.results import Results
from bigtickets.analysis.sections.shown import file_name, picture
from bigtickets.analysis.statistics.gain import Gain
from bigtickets.analysis.statistics.law_points import Place, by_size
from bigtickets.analysis.statistics.transition import Transition
from bigtickets.analysis.writing.blocks import Picture
from bigtickets.analysis.writing.words import percent, points, size


@dataclass(frozen=True)
class _Axis:
    """Against what the figures are drawn."""

    place: Callable[[Gain | Transition], Place]
    """Setting, amount and block; a line per block."""
    label: str
    tick: Callable[[float], str]
    """An amount in words."""
    unit: str
    caption: str


def size_pictures(results: Results) -> list[Picture]:
    """Gain and collapse point against model size, per share of the data."""
    caption = "With 95 % intervals; models of a task are joined by a line."
    axis = _Axis(by_size, "Parameters of the dense model", size, "parameters", caption)
    pictures: list[Picture] = []
    for fraction in sorted({law.data_fraction for law in results.laws}, reverse=True):
        share = "" if fraction == 1 else f", {percent(fraction)} of the data"
        gains = [one for one in results.gains if one.data_fraction == fraction]
        falls = [one for one in results.transitions if one.data_fraction == fraction]
        tail, key = f"by model size{share}", ("size", fraction)
        pictures += _pictures(gains, falls, axis, tail, key)
    return pictures


def data_pictures(results: Results) -> list[Picture]:
    """Gain and collapse point against the number of training examples, per task."""
    caption = "With 95 % intervals; shares of the data of a model are joined by a line."
    pictures: list[Picture] = []
    for task in dict.fromkeys(law.task for law in results.data_laws):
        amount_of = {float(point.setting): point.amount for law in results.data_laws
                     for point in law.points if law.task == task}  # fmt: skip

        def place(one: Gain | Transition, amounts: dict[float, float] = amount_of) -> Place:
            return repr(one.data_fraction), amounts[one.data_fraction], one.model

        axis = _Axis(place, "Training examples", "{:,.0f}".format, "training examples", caption)
        gains = [one for one in results.gains if one.task == task]
        falls = [one for one in results.transitions if one.task == task]
        pictures += _pictures(gains, falls, axis, f"by amount of data: {task}", ("data", task))
    return pictures


def _pictures(
    gains: Sequence[Gain],
    falls: Sequence[Transition],
    axis: _Axis,
    tail: str,
    key: tuple[str, str | float],
) -> Iterator[Picture]:
    """A figure of the gains and one of the collapse points, where two amounts have a value."""
    first, last = key
    of_gain = [(axis.place(one), one.debiased) for one in gains]
    of_fall = [(axis.place(one), one.collapse_sd) for one in falls]
    for what, name, placed, label in (
        ("gain", "Gain", of_gain, "De-biased gain (points)"),
        ("collapse", "Collapse point", of_fall, "Collapse point (% removed)"),
    ):
        known = [(line, amount, e) for (_, amount, line), e in placed if e.value is not None]
        if len({amount for _, amount, _ in known}) > 1:
            words = "; ".join(
                f"{line}, {axis.tick(amount)} {axis.unit}: {points(e.value, signed=what == 'gain')}"
                for line, amount, e in known
            )
            title = f"{name} {tail}"
            drawn = amount_figure(known, title, (axis.label, label), axis.tick)
            yield picture(file_name(first, what, last), title, words, axis.caption, drawn)
