"""How many seeds a wanted precision needs, before anything is run."""

import math
from dataclasses import dataclass

from scipy import integrate, stats

from bigtickets.errors import InputError

MOST = 10_000


@dataclass(frozen=True)
class SeedsNeeded:
    """Answer of `seeds_needed`."""

    seeds: int
    half_width: float
    """Half width of the interval that these seeds give, in the units asked in."""
    precision: float
    sd_paired: float
    levels: int
    confidence: float
    assurance: float


def half_width(
    seeds: int,
    sd_paired: float,
    levels: int = 1,
    confidence: float = 0.95,
    assurance: float = 0.5,
) -> float:
    """Half width of Student's t interval of a mean paired difference over `seeds`.

    t(1 - (1-confidence)/(2 levels), S-1) · s / sqrt(S), Bonferroni over `levels` that are to
    hold at once; s is the sample deviation that is not exceeded with probability `assurance`:
    sd · sqrt(chi²(assurance, S-1) / (S-1)).
    """
    freedom = seeds - 1
    t = float(stats.t.ppf(1 - (1 - confidence) / (2 * levels), freedom))
    spread = sd_paired * math.sqrt(float(stats.chi2.ppf(assurance, freedom)) / freedom)
    return t * spread / math.sqrt(seeds)


def seeds_needed(
    precision: float,
    sd_paired: float,
    levels: int = 1,
    confidence: float = 0.95,
    assurance: float = 0.5,
) -> SeedsNeeded:
    """Fewest seeds whose interval is at most ± precision with probability `assurance`.

    `precision` and `sd_paired` (deviation over seeds of the paired difference; sqrt(2) times
    that of one score where seeds share nothing) in the same units. InputError for numbers that
    are not positive, or when 10,000 seeds are not enough.
    """
    asked = (precision, sd_paired, confidence, 1 - confidence, assurance, 1 - assurance)
    if not all(math.isfinite(a) and a > 0 for a in asked) or levels < 1:
        raise InputError("precision, spread and levels must be positive, probabilities in (0, 1)")
    low, high = 1, 2
    while half_width(high, sd_paired, levels, confidence, assurance) > precision:
        if high >= MOST:
            raise InputError(f"more than {MOST} seeds are needed for ± {precision:g}")
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        enough = half_width(middle, sd_paired, levels, confidence, assurance) <= precision
        low, high = (low, middle) if enough else (middle, high)
    width = half_width(high, sd_paired, levels, confidence, assurance)
    return SeedsNeeded(high, width, precision, sd_paired, levels, confidence, assurance)


def expected_null_gain(sd: float, seeds: int, levels: int) -> float:
    """Naive gain that noise alone gives on average: sd / sqrt(S) · E[largest of L normals].

    `sd`: over seeds, of one score. The dense model's own noise shifts all levels alike and
    drops out of the mean.
    """
    largest, _ = integrate.quad(
        lambda z: z * levels * stats.norm.pdf(z) * stats.norm.cdf(z) ** (levels - 1), -10, 10
    )
    return sd / math.sqrt(seeds) * float(largest)
