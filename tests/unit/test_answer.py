"""The two sentences, for each outcome."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bigtickets.analysis.results import Results
from bigtickets.analysis.sections.answer import answer
from bigtickets.analysis.statistics.contrast import contrasts
from bigtickets.analysis.statistics.curves import curves
from bigtickets.analysis.statistics.estimates import Estimate
from bigtickets.analysis.statistics.gain import gain
from bigtickets.analysis.statistics.transition import transition
from bigtickets.analysis.writing.words import interval, listed, percent, points, size

RATIOS = np.arange(1, 9) / 10


def results(rise: float, fall: float, seeds: int = 5, tasks: int = 1, noise: float = 0.004) -> Any:
    """Results of made-up trials: `rise` at 0.2, `fall` from 0.6 on."""
    rng = np.random.default_rng(1)
    rows = []
    for task in range(tasks):
        for kind in ("dense", "winning", "random"):
            for ratio in RATIOS if kind != "dense" else [0.0]:
                bend = fall * max(ratio - 0.5, 0) * 2
                bump = rise if kind == "winning" and abs(ratio - 0.2) < 0.15 else 0
                lag = 0.05 if kind == "random" else 0
                for seed in range(seeds):
                    score = 0.8 + bump - bend - lag + noise * rng.standard_normal()
                    rows.append((f"t{task}", kind, ratio, seed, score))
    table = pd.DataFrame(rows, columns=["task", "kind", "ratio", "seed", "score"])
    table = table.assign(
        id=[str(i) for i in range(len(table))],
        model="m",
        parameters=10,
        data_fraction=1.0,
        x=table["ratio"],
        majority_score=0.5,
        degenerate=None,
    )
    winning = curves(table)
    others = "control_gains tasks_gains other_gains whole_model others agreements laws"
    others += " data_laws collapses no_examples"
    empty: dict[str, Any] = dict.fromkeys(others.split(), ())
    return Results(
        gains=[gain(c) for c in winning],
        transitions=[transition(c) for c in winning],
        contrasts=contrasts(table, [("winning", "random")]),
        **empty,
    )


def test_found() -> None:
    text = answer(results(0.03, 0.2, tasks=2))
    assert text.startswith("A super ticket was found on 2 of 2 model-task pairs: most clearly for")
    assert "beats the dense model by 3." in text
    assert "5 seeds" in text
    assert "winning tickets beat random ones of the same size on 2 of 2 pairs" in text


def test_not_found() -> None:
    text = answer(results(0.0, 0.2))
    assert text.startswith("No super ticket was found: the de-biased gain over the dense model")
    assert "picking the best ratio by eye would have shown +" in text
    assert "noise alone gives +" in text


def test_collapse_is_told_in_per_cent_removed() -> None:
    assert "of the encoder is removed" in answer(results(0.0, 0.4))


def test_no_collapse() -> None:
    assert "No collapse is certain within the ratios and seeds" in answer(results(0.0, 0.0))


def test_one_seed() -> None:
    text = answer(results(0.03, 0.2, seeds=1))
    assert text.startswith("Whether any ticket beats the dense model is not to be had")
    assert "chosen and measured on the same runs" in text


def test_nothing() -> None:
    assert "there is no answer" in answer(replace(results(0, 0), gains=(), transitions=()))


def test_two_sentences() -> None:
    for one in (results(0.03, 0.4), results(0.0, 0.0), results(0.03, 0.2, seeds=1)):
        assert answer(one).count(". ") == 1


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (points(-0.0001), "0.0"),
        (points(-0.0123, signed=True), "−1.2"),
        (points(None), "–"),
        (percent(0.3), "30 %"),
        (percent(0.125), "12.5 %"),
        (percent(1.0), "100 %"),
        (interval(0.01, 0.02), "1.0 to 2.0"),
        (interval(None, 0.02), "at most 2.0"),
        (interval(0.01, None), "at least 1.0"),
        (interval(float("nan"), None), "–"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (listed([]), ""),
        (size(17_400_000), "17.4 M"),
        (size(1.2e10), "12 B"),
    ],
)
def test_words(words: str, wanted: str) -> None:
    assert words == wanted


def test_estimates_need_no_interval() -> None:
    one = results(0.03, 0.2)
    bare = replace(one.gains[0], debiased=Estimate(0.01, reason="why"), found=False)
    assert "(why)" in answer(replace(one, gains=[bare]))
