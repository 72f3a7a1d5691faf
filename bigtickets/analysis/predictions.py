"""Predictions of finished trials as examples to resample, for any headline metric.

A headline is the mean of its metric's parts, and with several evaluation splits the mean over
them. Each part is a function of means over examples, so the whole is one too: the features of a
split are marked with an indicator, by which their means are divided.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bigtickets.analysis.statistics.estimates import Array
from bigtickets.analysis.statistics.examples import METRICS, Combine, MeanExamples
from bigtickets.study.folder import RunFolder
from bigtickets.study.tasks import METRICS as HEADLINES
from bigtickets.study.tasks import MODULE

Splits = list[tuple[Array, NDArray]]
"""(logits N x C, labels N) per evaluation split."""
MANY = {"score": "scores", "loss": "losses"}
TOLERANCE = 1e-3
"""Recorded scores come from the same logits; a larger difference means another metric."""


def examples_of_cell(
    folder: RunFolder, trials: pd.DataFrame, value: Literal["score", "loss"] = "score"
) -> tuple[MeanExamples | None, str]:
    """Examples of one cell's trials, or None and why they cannot be had.

    They must give the recorded scores (or losses) again; then the bootstrap resamples what was
    reported.
    """
    scored = trials[trials[value].notna()]
    parts, why = (("loss",), "") if value == "loss" else _parts(str(trials["metric"].iloc[0]))
    if why:
        return None, why
    if not len(scored):
        return None, f"no trial has a {value}"
    splits = {str(i): read_predictions(folder.trial(str(i))) for i in scored["id"]}
    known = {i: s for i, s in splits.items() if s}
    if len(known) < len(splits):
        return None, f"{len(splits) - len(known)} trials have no readable predictions"
    shapes = {tuple(logits.shape for logits, _ in s) for s in known.values()}
    if len(shapes) != 1:
        return None, "the trials were evaluated on different examples"
    examples = _examples(known, parts)
    again = [examples.scores(i, np.ones((1, examples.count)))[0] for i in known]
    if not np.allclose(again, scored[value], atol=TOLERANCE):
        return None, f"the predictions do not give the recorded {MANY[value]}"
    return examples, ""


def read_predictions(trial: Path) -> Splits:
    """Logits and labels of each evaluation split; empty if they are missing or not readable."""
    try:
        tensors = load_file(trial / "predictions.safetensors")
    except (OSError, SafetensorError):
        return []
    suffixes = sorted(key.removeprefix("logits") for key in tensors if key.startswith("logits"))
    splits = [(tensors[f"logits{s}"], tensors[f"labels{s}"]) for s in suffixes]
    return splits if all(np.isfinite(logits).all() for logits, _ in splits) else []


def _parts(headline: str) -> tuple[tuple[str, ...], str]:
    """The metrics whose mean the headline is, and why they cannot be resampled."""
    if headline.startswith(MODULE):
        return (), "its metric is a module, and a report runs no code but its own"
    keys = HEADLINES[headline].keys if headline in HEADLINES else ()
    known = bool(keys) and all(key in METRICS for key in keys)
    return tuple(keys), "" if known else f"the metric {headline} is not known here"


def _examples(splits: dict[str, Splits], parts: Sequence[str]) -> MeanExamples:
    first = next(iter(splits.values()))
    lengths = [len(labels) for _, labels in first]
    widths = [[METRICS[p][0](*pair).shape[1] for p in parts] for pair in first]
    features = {i: _features(s, parts, lengths) for i, s in splits.items()}
    return MeanExamples(sum(lengths), features, _combine(parts, widths))


def _features(splits: Splits, parts: Sequence[str], lengths: Sequence[int]) -> Array:
    """Features of all splits side by side, each with its indicator in front (N, K)."""
    starts = np.cumsum([0, *lengths])
    columns = []
    for (logits, labels), start, length in zip(splits, starts, lengths, strict=False):
        own = [METRICS[p][0](logits.astype(np.float64), labels) for p in parts]
        block = np.concatenate([np.ones((length, 1)), *own], axis=1)
        spread = np.zeros((starts[-1], block.shape[1]))
        spread[start : start + length] = block
        columns.append(spread)
    return np.concatenate(columns, axis=1)


def _combine(parts: Sequence[str], widths: Sequence[Sequence[int]]) -> Combine:
    """Means of the features to the headline: the mean over splits and parts."""

    def combine(mean: Array) -> Array:
        scores, at = [], 0
        for split in widths:
            share, at = np.maximum(mean[..., at : at + 1], 1e-300), at + 1
            for part, width in zip(parts, split, strict=True):
                scores.append(METRICS[part][1](mean[..., at : at + width] / share))
                at += width
        return np.mean(scores, axis=0)

    return combine
