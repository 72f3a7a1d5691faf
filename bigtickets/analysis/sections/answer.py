"""The answer in two sentences, in plain words, hedged by what the study is."""

from collections.abc import Sequence

from bigtickets.analysis.results import Results
from bigtickets.analysis.statistics.contrast import Contrast
from bigtickets.analysis.statistics.gain import Gain
from bigtickets.analysis.statistics.transition import Transition
from bigtickets.analysis.writing.words import cell_name, count, interval, percent, points

PAIR, PAIRS = "model-task pair", "model-task pairs"
NOTHING = "No winning ticket has been trained yet beside a dense model, so there is no answer."


def answer(results: Results) -> str:
    """Two sentences: is there a super ticket, and where do the tickets collapse."""
    known = [one for one in results.gains if one.naive is not None]
    if not known:
        return NOTHING
    return f"{_gain_sentence(known)} {_fall_sentence(results)}"


def _gain_sentence(gains: Sequence[Gain]) -> str:
    """The first sentence: found, not found, or not to be had."""
    found = [one for one in gains if one.found]
    bounded = [one for one in gains if one.debiased.low is not None]
    if found:
        return _found_sentence(found, gains)
    if bounded:
        return _none_sentence(bounded, len(gains))
    best = max(gains, key=lambda one: one.naive or 0.0)
    why = best.debiased.reason or "too few seeds"
    return (
        f"Whether any ticket beats the dense model is not to be had from this study ({why}): the "
        f"best mean difference is {points(best.naive, signed=True)} points, for "
        f"{_name(best)} with {percent(best.x, 0)} of the encoder removed, chosen and measured on "
        "the same runs."
    )


def _found_sentence(found: Sequence[Gain], gains: Sequence[Gain]) -> str:
    clearest = max(found, key=lambda one: one.debiased.low or 0.0)
    many = "" if len(gains) == 1 else f" on {len(found)} of {count(len(gains), PAIR, PAIRS)}"
    most = "for" if len(found) == 1 else "most clearly for"
    return (
        f"A super ticket was found{many}: {most} {_name(clearest)}, where a ticket with about "
        f"{percent(clearest.x, 0)} of the encoder removed beats the dense model by "
        f"{points(clearest.debiased.value)} points ({_interval(clearest)})."
    )


def _none_sentence(bounded: Sequence[Gain], pairs: int) -> str:
    best = max(bounded, key=lambda one: one.debiased.value or 0.0)
    many = "" if pairs == 1 else f" on any of the {count(pairs, PAIR, PAIRS)}"
    most = "the" if pairs == 1 else "the largest"
    return (
        f"No super ticket was found{many}: {most} de-biased gain over the dense model is "
        f"{points(best.debiased.value, signed=True)} points ({_interval(best)}) for {_name(best)}, "
        f"where picking the best ratio by eye would have shown {points(best.naive, signed=True)} "
        f"and noise alone gives {points(best.null, signed=True)}."
    )


def _fall_sentence(results: Results) -> str:
    """The second sentence: collapse, transition and control."""
    sure = [t for t in results.transitions if t.collapse_sd.high is not None]
    parts = [_collapse_words(sure, results.transitions)]
    breaks = [t for t in results.transitions if t.found]
    if breaks:
        many = f" on {len(breaks)} of {len(results.transitions)}"
        parts.append(f"the fall has a break that no smooth curve explains{many}")
    elif sure:
        parts.append("no abrupt transition was found")
    if control := _control_words(results.contrasts):
        parts.append(control)
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def _collapse_words(sure: Sequence[Transition], pairs: Sequence[Transition]) -> str:
    if not sure:
        return "no collapse is certain within the ratios and seeds of this study"
    at = sorted(t.collapse_sd.value or 0.0 for t in sure)
    first, last = percent(at[0], 0), percent(at[-1], 0)
    where = f"about {first}" if first == last else f"about {first} to {last}"
    many = "" if len(pairs) == 1 else f" ({len(sure)} of {count(len(pairs), PAIR, PAIRS)})"
    return (
        f"winning tickets fall behind the dense model by more than one seed-to-seed standard "
        f"deviation once {where} of the encoder is removed{many}"
    )


def _control_words(contrasts: Sequence[Contrast]) -> str:
    random = [c for c in contrasts if c.second == "random" and c.area.low is not None]
    if not random:
        return ""
    better = sum((c.area.low or 0.0) > 0 for c in random)
    beat = "winning tickets beat random ones of the same size"
    if len(random) == 1:
        return f"{beat} over all ratios together" if better else f"that {beat} is not shown"
    return f"over all ratios together, {beat} on {better} of {len(random)} pairs"


def _interval(one: Gain) -> str:
    ends = interval(one.debiased.low, one.debiased.high)
    return f"95 % interval {ends}, {count(one.seeds, 'seed')}"


def _name(one: Gain) -> str:
    return cell_name(one.model, one.task, one.data_fraction)
