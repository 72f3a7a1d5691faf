"""Do different seeds keep the same units? A ranking that is noise defines no transition."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bigtickets.analysis.statistics.estimates import Array, Estimate, t_interval, unavailable
from bigtickets.errors import InputError


@dataclass(frozen=True)
class Agreement:
    """Agreement of kept masks of one unit type over seeds."""

    unit: str
    seeds: int
    units: int
    kept: float
    """Units kept, mean over the seeds."""
    iou_all: float | None
    """Kept by all seeds / kept by any."""
    iou_pairs: Estimate
    """Intersection over union, mean over pairs of seeds."""
    iou_chance: float | None
    """`iou_pairs` of random masks of the same sizes (ratio of expectations)."""
    alpha: Estimate
    """Krippendorff's alpha, nominal: 1 full agreement, 0 chance."""
    reason: str | None = None


def agreement(
    masks: Sequence[Mapping[str, NDArray[np.bool_]]], confidence: float = 0.95
) -> tuple[Agreement, ...]:
    """Agreement per unit type of kept masks (L, N), one mapping per seed.

    Intervals are jackknife ones over seeds (three at least): seeds, not units, are what is
    sampled, and units of a layer are not independent. InputError for masks of unlike shapes.
    """
    if not masks:
        return ()
    found = []
    for unit in masks[0]:
        if any(unit not in mask or mask[unit].shape != masks[0][unit].shape for mask in masks):
            raise InputError(f"masks of {unit}: not of one model; their shapes differ")
        kept_SU = np.stack([np.asarray(mask[unit], bool).ravel() for mask in masks])
        found.append(_agreement(unit, kept_SU, confidence))
    return tuple(found)


def _agreement(unit: str, kept_SU: NDArray[np.bool_], confidence: float) -> Agreement:
    seeds, units = kept_SU.shape
    any_kept = int(kept_SU.any(0).sum())
    reason = "one seed: nothing to agree with" if seeds < 2 else None
    return Agreement(
        unit=unit,
        seeds=seeds,
        units=units,
        kept=float(kept_SU.sum(1).mean()),
        iou_all=float(kept_SU.all(0).sum() / any_kept) if any_kept and seeds > 1 else None,
        iou_pairs=_jackknife(pairwise_iou, kept_SU, confidence),
        iou_chance=_chance(kept_SU),
        alpha=_jackknife(krippendorff_alpha, kept_SU, confidence),
        reason=reason,
    )


def krippendorff_alpha(kept_SU: NDArray[np.bool_]) -> float | None:
    """alpha = 1 - D_observed / D_expected for binary nominal data without gaps.

    D_observed: mean over units of the disagreeing share of pairs of seeds; D_expected: that of
    pairs drawn from all S x U values (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability"). None where all values are the same, for then nothing can be expected.
    """
    seeds = len(kept_SU)
    ones_U = kept_SU.sum(0)
    ones, total = int(ones_U.sum()), kept_SU.size
    if seeds < 2 or ones in (0, total):
        return None
    observed = (2 * ones_U * (seeds - ones_U)).mean() / (seeds * (seeds - 1))
    expected = 2 * ones * (total - ones) / (total * (total - 1))
    return float(1 - observed / expected)


def pairwise_iou(kept_SU: NDArray[np.bool_]) -> float | None:
    """Mean over pairs of seeds of kept by both / kept by either."""
    pairs = itertools.combinations(kept_SU, 2)
    shares = [float((a & b).sum() / (a | b).sum()) for a, b in pairs if (a | b).any()]
    return float(np.mean(shares)) if shares else None


def _chance(kept_SU: NDArray[np.bool_]) -> float | None:
    """Pairs of random masks that keep a and b of U units share ab/U on average."""
    size_S: Array = kept_SU.sum(1).astype(np.float64)
    shares = []
    for a, b in itertools.combinations(size_S, 2):
        common = a * b / kept_SU.shape[1]
        if a + b > 0:
            shares.append(common / (a + b - common))
    return float(np.mean(shares)) if shares else None


def _jackknife(
    statistic: Callable[[NDArray[np.bool_]], float | None],
    kept_SU: NDArray[np.bool_],
    confidence: float,
) -> Estimate:
    """Value over all seeds, with the delete-one-seed jackknife's t interval."""
    value = statistic(kept_SU)
    seeds = len(kept_SU)
    if value is None:
        return unavailable("fewer than two seeds, or masks that keep all or nothing", confidence)
    parts = (
        [statistic(np.delete(kept_SU, s, axis=0)) for s in range(seeds)] if seeds > 2 else [None]
    )
    if any(part is None for part in parts):
        return Estimate(value, confidence=confidence, reason="no interval below three seeds")
    part_S = np.array(parts, np.float64)
    variance = (seeds - 1) / seeds * float(((part_S - part_S.mean()) ** 2).sum())
    return t_interval(value, variance**0.5, seeds - 1, confidence, "jackknife over seeds")
