"""The seeds that a plan asks for: they give the precision, and they come from the trials."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from _known_truth import is_at_least, table_of, truth
from _synthetic_run import make_run, shared_run, study

from bigtickets.analysis import precision
from bigtickets.analysis.precision import ASSUMED_SD, ASSURANCE, Seeds, seeds_line, seeds_of
from bigtickets.analysis.statistics.curves import curves
from bigtickets.analysis.statistics.gain import gain
from bigtickets.analysis.statistics.levels import level_estimates
from bigtickets.analysis.table import planned_trials, read_table
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import AnalysisSpec, MetricModule, StudySpec
from bigtickets.study.state import write_run

RATIOS = (0.2, 0.4, 0.6, 0.8)


def asking(points: float) -> StudySpec:
    return dataclasses.replace(study(), analysis=AnalysisSpec(precision=points))


def half_widths(seeds: int, draws: int) -> dict[str, list[float]]:
    """Points, of simulated studies whose scores have the assumed deviation: no effect at all."""
    rng, found = np.random.default_rng(0), {"gain": [], "level": []}
    deviation = ASSUMED_SD / 2**0.5 / 100
    for _ in range(draws):
        scores = {("dense", 0.0, s): 0.8 + rng.normal(0, deviation) for s in range(seeds)}
        for ratio in RATIOS:
            for s in range(seeds):
                scores["winning", ratio, s] = 0.8 + rng.normal(0, deviation)
        (curve,) = curves(table_of(scores))
        for name, estimate in (
            ("gain", gain(curve).debiased),
            ("level", level_estimates(curve)[0]),
        ):
            found[name].append(50 * (estimate.high - estimate.low))
    return found


def test_simulated_studies_reach_the_precision_with_these_seeds_and_not_with_fewer(
    tmp_path: Path,
) -> None:
    asked = 1.5
    seeds = seeds_of(asking(asked), RunFolder(tmp_path / "none"))
    assert seeds.differences == 0
    for widths in half_widths(seeds.needed, 60).values():
        assert is_at_least(truth.share("", [w <= asked for w in widths], ""), ASSURANCE)
    for widths in half_widths(seeds.needed // 2, 20).values():
        assert np.mean([w <= asked for w in widths]) < ASSURANCE / 2


def test_the_deviation_is_that_of_the_finished_trials() -> None:
    folder = shared_run()
    found = seeds_of(asking(1.0), folder)
    differences = []
    for curve in curves(read_table(folder), ["winning", "random"]):
        differences += [column[np.isfinite(column)] for column in curve.difference_SL.T]
    pooled = [column - column.mean() for column in differences if len(column) > 1]
    squares, freedom = sum((c**2).sum() for c in pooled), sum(len(c) - 1 for c in pooled)
    assert found.sd == pytest.approx(100 * (squares / freedom) ** 0.5)
    assert found.differences == sum(map(len, pooled)) > 50
    assert found.given == 3


def test_the_deviation_is_in_the_points_of_the_report(tmp_path: Path) -> None:
    plain = study(models=("L3",), tasks=("movie",))
    folder = make_run(tmp_path / "run", plain, lambda step: True)
    before = seeds_of(asking(1.0), folder)
    module = MetricModule("cost", "/scripts/cost.py", "0" * 64, points=0.5)
    write_run(
        dataclasses.replace(plain, tasks=(dataclasses.replace(plain.tasks[0], module=module),)),
        folder,
    )
    found = seeds_of(asking(1.0), folder)
    assert found.sd == pytest.approx(before.sd * 0.5 / 100)


def test_finer_precision_takes_more_seeds_up_to_where_it_is_hopeless(tmp_path: Path) -> None:
    none = RunFolder(tmp_path / "none")
    needed = [seeds_of(asking(points), none).needed for points in (4, 1, 0.25)]
    assert needed == sorted(needed)
    assert needed[0] < needed[2]
    hopeless = seeds_of(asking(0.001), none)
    assert hopeless.needed is None
    assert "more than 10000" in seeds_line(hopeless)


def test_the_line_says_where_the_deviation_is_from() -> None:
    assert "assumed" in seeds_line(Seeds(5, 12, 1.0, 1.4, 0))
    line = seeds_line(Seeds(5, 12, 0.5, 1.4, 120))
    assert "seeds: 5 given; a gain ± 0.5 points (95 % interval) needs 12" in line
    assert "1.40 points (measured on 120 differences)" in line


def test_of_many_trials_whole_levels_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    every = seeds_of(asking(1.0), shared_run())
    monkeypatch.setattr(precision, "MOST_TRIALS", len(planned_trials(shared_run())) // 3)
    some = seeds_of(asking(1.0), shared_run())
    assert 2 < some.differences < every.differences / 2
    assert some.sd == pytest.approx(every.sd, rel=0.5)
