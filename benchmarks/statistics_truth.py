"""Do the statistics tell the truth? Simulations in which the truth is known.

    python benchmarks/statistics_truth.py [--scale 1.0] [--seed 0]

Every line is a share or a mean over simulated studies with its 95 % interval. `--scale` multiplies
the numbers of repetitions; 1.0 takes about a quarter of an hour on one core. Scores are those of
BERT on GLUE: a standard deviation of 0.8 points over seeds unless a line says otherwise.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit
from statsmodels.stats.proportion import proportion_confint

from bigtickets.analysis.statistics.agreement import krippendorff_alpha
from bigtickets.analysis.statistics.contrast import contrast
from bigtickets.analysis.statistics.curves import Curve
from bigtickets.analysis.statistics.estimates import Estimate
from bigtickets.analysis.statistics.examples import contributions
from bigtickets.analysis.statistics.gain import Gain, gain, gain_over_tasks
from bigtickets.analysis.statistics.law_points import LawPoint
from bigtickets.analysis.statistics.laws import log_law
from bigtickets.analysis.statistics.power import expected_null_gain, seeds_needed
from bigtickets.analysis.statistics.transition import Transition, transition

Array = NDArray[np.float64]
SD = 0.008
NINE = np.linspace(0.1, 0.8, 8)
FLAT = np.zeros(8)
HILL = np.array([0.2, 0.5, 0.9, 0.5, -0.5, -2, -5, -10]) / 100
COLLAPSED = np.array([0, 0, 0, 0, -0.5, -2, -5, -10]) / 100
WILD = np.array([1, 1, 1, 1, 1.5, 2, 3, 4])


@dataclass(frozen=True)
class Result:
    """One line: a share or a mean with its interval, and what is asked of it."""

    name: str
    value: float
    low: float
    high: float
    n: int
    asked: str = ""


def share(name: str, hits: Sequence[bool], asked: str = "") -> Result:
    """A share with Wilson's interval."""
    low, high = proportion_confint(sum(hits), len(hits), method="wilson")
    return Result(name, sum(hits) / len(hits), low, high, len(hits), asked)


def mean(name: str, values: Sequence[float], asked: str = "", scale: float = 1.0) -> Result:
    """A mean with its normal interval."""
    found = np.array(values) * scale
    half = 1.96 * found.std(ddof=1) / math.sqrt(len(found))
    return Result(name, found.mean(), found.mean() - half, found.mean() + half, len(found), asked)


def curve_of(value_SL: Array, x_L: Array = NINE, **known: object) -> Curve:
    """A curve from scores (S, L+1), the dense model first."""
    seeds, levels = value_SL.shape
    names = tuple(tuple(f"{s}-{level}" for level in range(levels)) for s in range(seeds))
    fields: dict = {
        "model": "m", "parameters": 10**7, "task": "t", "data_fraction": 1.0, "kind": "winning",
        "value": "score", "axis": "x", "majority": None, "degenerate": 0, "missing": 0,
    }  # fmt: skip
    ratios = tuple(float(x) for x in x_L)
    return Curve(
        **(fields | known), seeds=tuple(range(seeds)), ratios=ratios, x_L=x_L,
        value_SL=value_SL, trials=names,
    )  # fmt: skip


def noisy(
    rng: np.random.Generator,
    truth_L: Array,
    seeds: int,
    sd: float = SD,
    wild_L: Array | None = None,
) -> Array:
    """Scores about 0.85 with a seed effect and noise at each level, the dense model too."""
    levels = len(truth_L)
    scale_L = np.r_[1.0, np.ones(levels) if wild_L is None else wild_L]
    noise_SL = rng.normal(0, sd, (seeds, levels + 1)) * scale_L
    return 0.85 + rng.normal(0, sd, (seeds, 1)) + np.r_[0.0, truth_L] + noise_SL


def covers(estimate: Estimate, truth: float) -> bool:
    """Whether the interval holds the truth; an open end holds everything."""
    low = -math.inf if estimate.low is None else estimate.low
    high = math.inf if estimate.high is None else estimate.high
    return low <= truth <= high


def small(p_value: float | None) -> bool:
    """Whether a p-value is at most 0.05."""
    return p_value is not None and p_value <= 0.05


def check_null_gain(n: int, seed: int, seeds: int = 5) -> list[Result]:
    """No effect at any level."""
    rng = np.random.default_rng(seed)
    gains = [gain(curve_of(noisy(rng, FLAT, seeds)), seed=i) for i in range(n)]
    label = f"no effect, 8 levels, {seeds} seeds"
    expected = 100 * expected_null_gain(SD, seeds, 8)
    return [
        share(f"{label}: super ticket claimed (interval)", [g.found for g in gains], "<= 5 %"),
        share(f"{label}: p <= 0.05 (permutation)", [small(g.p_value) for g in gains], "5 %"),
        share(f"{label}: interval covers 0", [covers(g.debiased, 0) for g in gains], "95 %"),
        mean(f"{label}: de-biased gain, points", [g.debiased.value or 0 for g in gains],
             "within 0.05 of 0", 100),
        mean(f"{label}: naive gain, points", [g.naive or 0 for g in gains], f"{expected:.2f}", 100),
        mean(f"{label}: null gain, points", [g.null or 0 for g in gains], "as naive", 100),
    ]  # fmt: skip


def check_null_tasks(n: int, seed: int, tasks: int = 8) -> list[Result]:
    """No effect on any of eight tasks whose seeds spread differently."""
    rng = np.random.default_rng(seed)
    spread = SD * np.array([0.5, 0.5, 0.5, 0.7, 1, 1, 1.5, 2])[:tasks]
    means = [
        gain_over_tasks([gain(curve_of(noisy(rng, FLAT, 5, sd)), seed=i) for sd in spread])
        for i in range(n)
    ]
    label = f"no effect, mean over {tasks} tasks"
    return [
        share(f"{label}: claimed, these tasks", [m.found for m in means], "<= 5 %"),
        share(f"{label}: covers 0, new tasks", [covers(m.new_tasks, 0) for m in means], "95 %"),
        mean(f"{label}: de-biased, points", [m.these_tasks.value or 0 for m in means], "0", 100),
        mean(f"{label}: naive, points", [m.naive or 0 for m in means], "", 100),
    ]


def check_gain(
    n: int, seed: int, label: str, truth_L: Array, seeds: int, wild_L: Array | None = None
) -> list[Result]:
    """Coverage of the procedure's own expectation, and how often a super ticket is claimed."""
    rng = np.random.default_rng(seed)
    gains = [gain(curve_of(noisy(rng, truth_L, seeds, SD, wild_L)), seed=i) for i in range(n)]
    truth = float(np.mean([g.debiased.value or 0 for g in gains]))
    best = float(truth_L.max())
    name = f"{label}, {seeds} seeds"
    asked = "<= 5 %" if best <= 0 else "power"
    p_small = [small(g.p_value) for g in gains]
    return [
        share(f"{name}: interval covers", [covers(g.debiased, truth) for g in gains], "95 %"),
        share(f"{name}: claimed (interval)", [g.found for g in gains], asked),
        share(f"{name}: p <= 0.05 (permutation)", p_small, asked),
        mean(f"{name}: de-biased, points", [g.debiased.value or 0 for g in gains],
             f"best level {100 * best:.1f}", 100),
        mean(f"{name}: naive, points", [g.naive or 0 for g in gains], "", 100),
    ]  # fmt: skip


def with_examples(rng: np.random.Generator, seeds: int, examples: int, shared: float) -> Gain:
    """No effect on the population; each level's ticket errs on examples of its own.

    Every level has its own chance of being right at every example, the same for all seeds, and
    the chances are equal on average: what one sample of examples favours, others do not.
    """
    hardness_N, own_LN = rng.normal(2, 2, examples), rng.normal(0, shared, (9, examples))
    chance_LN = expit(hardness_N + own_LN)
    right_SLN = (rng.random((seeds, 9, examples)) < chance_LN).astype(np.float64)
    curve = curve_of(right_SLN.mean(-1))
    names = [str(name) for row in curve.trials for name in row]
    known = contributions(dict(zip(names, right_SLN.reshape(-1, examples), strict=True)))
    return gain(curve, known, seed=int(rng.integers(2**31)))


def check_examples(n: int, seed: int) -> list[Result]:
    """277 evaluation examples (RTE), 5 seeds."""
    rng = np.random.default_rng(seed)
    gains = [with_examples(rng, 5, 277, 1.0) for _ in range(n)]
    label = "no effect, 277 shared examples"
    return [
        share(f"{label}: claimed", [g.found for g in gains], "<= 5 %"),
        share(f"{label}: interval covers 0", [covers(g.debiased, 0) for g in gains], "95 %"),
        mean(f"{label}: de-biased, points", [g.debiased.value or 0 for g in gains], "0", 100),
        mean(f"{label}: naive, points", [g.naive or 0 for g in gains], "", 100),
    ]


def hinge(x_L: Array) -> Array:
    """Flat to 0.3, then 20 points per unit down."""
    return -0.2 * np.maximum(x_L - 0.3, 0)


def check_transition(n: int, seed: int, sd: float, levels: int = 8) -> list[Result]:
    """A true break at 0.3."""
    rng = np.random.default_rng(seed)
    x_L = np.linspace(0, 0.8, levels + 1)[1:]
    found = [transition(curve_of(noisy(rng, hinge(x_L), 5, sd), x_L), seed=i) for i in range(n)]
    collapse = float(np.interp(0.01, -hinge(x_L), x_L))
    label = f"break at 0.3, {levels + 1} levels, sd {100 * sd:.1f}"
    at = [covers(t.segmented.at, 0.3) for t in found]
    first = [covers(t.collapse_point, collapse) for t in found]
    return [
        share(f"{label}: break's interval covers", at, ">= 90 %"),
        mean(f"{label}: break", [t.segmented.at.value or 0 for t in found], "0.30"),
        share(f"{label}: break supported", [t.found for t in found], "power"),
        share(f"{label}: x_c (1 point) covered", first, ">= 90 %"),
        share(f"{label}: slope covered", [covers(t.slope, -0.2) for t in found], "95 %"),
    ]


SMOOTH: dict[str, Callable[[Array], Array]] = {
    "flat": lambda x: 0 * x,
    "linear": lambda x: -0.1 * x,
    "quadratic": lambda x: -0.2 * x**2,
    "hill, quadratic": lambda x: 0.06 * x - 0.2 * x**2,
    "logistic at 0.5": lambda x: -0.2 / (1 + np.exp(-(x - 0.5) / 0.1)),
    "logistic at 0.9": lambda x: -0.6 / (1 + np.exp(-(x - 0.9) / 0.1)),
    "exponential": lambda x: -0.002 * np.expm1(5 * x),
    "cubic": lambda x: -0.3 * x**3,
}


def check_smooth(
    n: int, seed: int, wild: bool, names: Sequence[str] = tuple(SMOOTH)
) -> list[Result]:
    """False breaks where the truth is smooth; `wild`: noise grows fourfold along the curve."""
    rng = np.random.default_rng(seed)
    wild_L = np.linspace(1, 4, 8) if wild else None
    results = []
    for name in names:
        curves = [noisy(rng, SMOOTH[name](NINE), 5, SD, wild_L) for _ in range(n)]
        found = [transition(curve_of(value_SL), seed=i) for i, value_SL in enumerate(curves)]
        label = f"smooth: {name}{', growing noise' if wild else ''}"
        results.append(share(f"{label}: false break", [t.found for t in found], "<= 5 %"))
        if name == "flat":
            sure = [t.collapse_sd.high is not None for t in found]
            results.append(share(f"{label}: sure collapse", sure, "<= 5 %"))
    return results


def check_width(n: int, seed: int) -> list[Result]:
    """A logistic fall of 20 points with 90-10 width 0.22."""
    rng = np.random.default_rng(seed)
    truth_L = -0.2 / (1 + np.exp(-(NINE - 0.45) / 0.05))
    found: list[Transition] = []
    for i in range(n):
        found.append(transition(curve_of(noisy(rng, truth_L, 5)), seed=i))
    width = 2 * math.log(9) * 0.05
    falls = [t.logistic for t in found]
    return [
        share("logistic fall: width covered", [covers(f.width, width) for f in falls], "95 %"),
        share("logistic fall: midpoint covered", [covers(f.midpoint, 0.45) for f in falls], "95 %"),
        mean("logistic fall: width", [f.width.value or 0 for f in falls], f"{width:.3f}"),
    ]


def points_with(
    rng: np.random.Generator, slope: float, models: int, tasks: int, of_model: float, of_task: float
) -> list[LawPoint]:
    """Points with a task's level and slope, a model's deviation, and seed noise (0.5 points)."""
    size = np.linspace(6.5, 9, models)
    task_T, slope_T = rng.normal(0, 0.01, tasks), slope + rng.normal(0, of_task, tasks)
    model_M = rng.normal(0, of_model, models)
    points = []
    for m, t in itertools.product(range(models), range(tasks)):
        value = task_T[t] + slope_T[t] * (size[m] - 7.75) + model_M[m] + rng.normal(0, 0.005)
        points.append(LawPoint(f"m{m}", round(10 ** size[m]), f"t{t}", float(value), 0.005, 4.0))
    return points


def check_sizes(
    n: int, seed: int, slope: float, models: int, tasks: int, of_model: float, of_task: float
) -> list[Result]:
    """Size and power of the law over sizes."""
    rng = np.random.default_rng(seed)
    laws = [
        log_law(points_with(rng, slope, models, tasks, of_model, of_task), "gain", seed=i)
        for i in range(n)
    ]
    label = f"{models} sizes, {tasks} tasks, slope {100 * slope:.1f}"
    label += f", model sd {100 * of_model:.1f}, slope sd {100 * of_task:.1f}"
    asked = "<= 5 %" if slope == 0 else "power"
    return [
        share(f"{label}: size effect claimed", [law.found for law in laws], asked),
        share(f"{label}: slope covered", [covers(law.slope, slope) for law in laws], "95 %"),
        share(f"{label}: two-level bootstrap", [covers(law.bootstrap, slope) for law in laws]),
        share(f"{label}: mixed model (Wald) covers", [covers(law.mixed, slope) for law in laws]),
        share(f"{label}: p over models <= 0.05", [small(law.p_permutation) for law in laws]),
        share(f"{label}: p within tasks <= 0.05", [small(law.p_within_blocks) for law in laws]),
    ]  # fmt: skip


def check_contrast(n: int, seed: int) -> list[Result]:
    """Two kinds that do not differ: some level differs after Holm's adjustment."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        first, second = (curve_of(noisy(rng, FLAT, 5), kind=k) for k in ("winning", "random"))
        found.append(contrast(first, second))
    any_level = [any((level.p_adjusted or 1) <= 0.05 for level in c.levels) for c in found]
    return [
        share("equal kinds: some level differs (Holm)", any_level, "<= 5 %"),
        share("equal kinds: area covers 0", [covers(c.area, 0) for c in found], "95 %"),
    ]


def check_agreement(n: int, seed: int) -> list[Result]:
    """Random masks agree by chance."""
    rng = np.random.default_rng(seed)
    masks = [rng.random((5, 144)).argsort(-1) < 100 for _ in range(n)]
    return [mean("random masks: alpha", [krippendorff_alpha(m) or 0.0 for m in masks], "0")]


def check_power(n: int, seed: int) -> list[Result]:
    """The seeds that were asked for give the precision that was asked for."""
    rng = np.random.default_rng(seed)
    results = []
    for precision, levels, assurance in ((0.01, 1, 0.5), (0.005, 8, 0.5), (0.005, 8, 0.9)):
        need = seeds_needed(precision, SD, levels, assurance=assurance).seeds
        t = stats.t.ppf(1 - 0.025 / levels, need - 1)
        spread = rng.normal(0, SD, (n, need)).std(axis=1, ddof=1)
        reached = list(t * spread / math.sqrt(need) <= precision)
        label = f"± {100 * precision:.1f} points at {levels} levels: {need} seeds reach it"
        results.append(share(label, reached, f">= {100 * assurance:.0f} %"))
    return results


def seconds_for(trials: int, seed: int) -> float:
    """Seconds that gain and transition take for so many trials: 9 levels, 5 seeds a curve."""
    rng = np.random.default_rng(seed)
    curves = [curve_of(noisy(rng, HILL, 5)) for _ in range(round(trials / 45))]
    started = time.process_time()
    for curve in curves:
        gain(curve)
        transition(curve)
    return time.process_time() - started


def checks(scale: float, seed: int) -> Iterator[list[Result]]:
    """All checks, each with its number of repetitions."""

    def n(count: int) -> int:
        return max(round(count * scale), 20)

    for seeds in (3, 5, 10):
        yield check_null_gain(n(2000), seed + seeds, seeds)
    yield check_null_tasks(n(300), seed + 1)
    for seeds in (3, 5, 10):
        yield check_gain(n(1000), seed + 10 + seeds, "true gain 0.9", HILL, seeds)
    yield check_gain(n(1000), seed + 2, "no gain, collapse, wild noise", COLLAPSED, 5, WILD)
    yield check_examples(n(600), seed + 3)
    for sd in (0.003, SD):
        yield check_transition(n(1000), seed + 4, sd)
    yield check_transition(n(500), seed + 4, SD, 16)
    for wild in (False, True):
        yield check_smooth(n(400), seed + 5, wild)
    yield check_width(n(500), seed + 6)
    for slope in (0.0, 0.01):
        yield check_sizes(n(500), seed + 7, slope, 6, 8, 0.0, 0.0)
        yield check_sizes(n(500), seed + 8, slope, 6, 8, 0.003, 0.003)
        yield check_sizes(n(500), seed + 8, slope, 4, 4, 0.003, 0.003)
    yield check_contrast(n(1000), seed + 9)
    yield check_agreement(n(1000), seed + 9)
    yield check_power(n(5000), seed + 9)


def line(result: Result) -> str:
    """One printed line."""
    number = f"{result.value:8.3f} [{result.low:.3f}, {result.high:.3f}]"
    return f"{result.name:<75} {number:<28} n={result.n:<5} {result.asked}"


def main() -> None:
    """Run all checks and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the repetitions")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    for results in checks(options.scale, options.seed):
        for result in results:
            print(line(result), flush=True)
    print(f"gain and transition of 10,000 trials: {seconds_for(10_000, options.seed):.1f} s")
    print(f"all: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
