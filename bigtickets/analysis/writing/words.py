"""How things are called and numbers are written, for people."""

import math
from collections.abc import Sequence

from bigtickets.study.tasks import MODULE

KINDS = {
    "dense": "dense",
    "winning": "winning",
    "losing": "losing",
    "random": "random",
    "random_layerwise": "random per layer",
    "reinit": "re-initialised",
}
"""Kinds in the order of tables and legends, with their names."""
METRICS = {
    "accuracy": "Accuracy (%)",
    "f1": "F1 (%)",
    "matthews": "Matthews correlation (× 100)",
    "accuracy_f1": "Mean of accuracy and F1 (%)",
    "pearson": "Pearson correlation (× 100)",
    "spearman": "Spearman correlation (× 100)",
    "pearson_spearman": "Mean of Pearson and Spearman (× 100)",
}
DEGENERATE = {
    "nan": "not finite",
    "constant": "constant prediction",
    "majority": "at or below the majority class",
}
VALUES = {"score": "score", "loss": "evaluation loss", "rescaled": "rescaled score"}
"""What a curve may be measured by."""
DASH = "–"
NOT_HAD = "not to be had"


def kind_name(kind: str) -> str:
    """A kind in words; unknown ones as they are."""
    return KINDS.get(kind, kind)


def metric_name(metric: str) -> str:
    """A metric with its unit, as axes and tables show it: times 100, or in a module's points."""
    if metric.startswith(MODULE):
        return f"{metric.removeprefix(MODULE)} (points)"
    return METRICS.get(metric, f"{metric} (× 100)")


def cell_name(model: str, task: str, data_fraction: float) -> str:
    """A model on a task, with the share of the data if it is not all."""
    share = "" if data_fraction == 1 else f", {percent(data_fraction)} of the data"
    return f"{model} on {task}{share}"


def points(value: float | None, signed: bool = False, digits: int = 1) -> str:
    """A score times 100; a true minus sign, a dash for what is missing."""
    if value is None or not math.isfinite(value):
        return DASH
    rounded = round(100 * value, digits) + 0.0  # no minus zero
    return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in per cent, without needless zeros."""
    if fraction is None or not math.isfinite(fraction):
        return DASH
    text = f"{100 * fraction:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def interval(low: float | None, high: float | None, signed: bool = False, digits: int = 1) -> str:
    """`low to high` in points; an open end is said; a dash if there is no interval."""
    ends = [None if v is None or not math.isfinite(v) else v for v in (low, high)]
    if ends == [None, None]:
        return DASH
    if ends[0] is None:
        return f"at most {points(ends[1], signed, digits)}"
    if ends[1] is None:
        return f"at least {points(ends[0], signed, digits)}"
    return f"{points(ends[0], signed, digits)} to {points(ends[1], signed, digits)}"


def count(number: int, one: str, many: str | None = None) -> str:
    """`3 seeds`, `1 seed`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def size(parameters: float) -> str:
    """17.4 M, 1.2 B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g} {name}"
    return f"{parameters:.0f}"


def p_value(value: float | None) -> str:
    """Three digits; below that, a bound."""
    if value is None or not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
