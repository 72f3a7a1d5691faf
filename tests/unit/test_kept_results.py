"""What the repository keeps of a run, and the comparison with the paper's protocol."""

import importlib.util
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from _synthetic_run import HEADS, LAYERS, NEURONS, Keep, make_run, study

from bigtickets.analysis.table import read_table
from bigtickets.errors import InputError
from bigtickets.files import read_json
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import ImportanceSpec
from bigtickets.study.state import read_manifest
from bigtickets.tickets.scores import Scores


def program(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


against_paper, keep_results = program("against_paper"), program("keep_results")


def run_of(root: Path, granularity: str = "example", keep: Keep = lambda _: True) -> RunFolder:
    """Two models, one task, tickets of each seed; scores as files that can be read."""
    spec = study(
        tasks=("tweets",),
        ratios=(0.0, 0.2, 0.5, 0.8),
        importance=ImportanceSpec(seeds="each", granularity=granularity),
    )
    folder = make_run(root, spec, keep)
    for step in read_manifest(folder):
        if step.step == "scores":
            sizes = {"heads": (LAYERS[step.model], HEADS), "neurons": (LAYERS[step.model], NEURONS)}
            seed = int(step.dense or "0", 16)
            sums = {u: np.random.default_rng(seed).random(size) for u, size in sizes.items()}
            scores = Scores(sums, {u: s**2 for u, s in sums.items()}, 9, granularity)
            scores.save(folder.score(step.id) / "scores.safetensors")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_of(tmp_path_factory.mktemp("kept") / "run")


@pytest.fixture(scope="module")
def compared(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """Tables by the start of their caption, against an unfinished run with `token` scores."""
    home = tmp_path_factory.mktemp("token") / "run"
    other = run_of(home, "token", keep=lambda step: (step.model, step.seed) != ("L6", 2))
    report = against_paper.compare(run.root, other.root)
    blocks = [block for section in report.sections for block in section.blocks]
    assert "Not whole: L6 on tweets." in next(
        b.text for b in blocks if "planned trials" in getattr(b, "text", "")
    )
    return {b.caption.split(" ")[0]: b.rows for b in blocks if hasattr(b, "rows")}


@pytest.mark.parametrize(("units", "drawn"), [(3, 2), (4, 3), (2, 5)])
def test_units_hit_with_replacement(units: int, drawn: int) -> None:
    all_draws = itertools.product(range(units), repeat=drawn)
    exact = np.mean([len(set(draw)) for draw in all_draws])
    assert against_paper.distinct(units, drawn) == pytest.approx(exact)
    mean, spread = against_paper.simulated(units, drawn)
    assert mean == pytest.approx(exact, abs=4 * spread / against_paper.DRAWS**0.5)


def test_random_with_replacement_removes_less_and_flatters(compared: dict[str, list]) -> None:
    rows = [row for row in compared["Random"] if row[1] == "0.8"]
    assert [row[0] for row in rows] == ["L3", "L6"]
    for _, _, exact, expected, simulated, *_ in rows:
        removed = [float(text.split()[0]) for text in (exact, expected, simulated)]
        # 1 - exp(-0.8) of the units of either type, a little more where they are few.
        assert removed == pytest.approx([80, 55, 55], abs=2.5)
    assert all(row[7].startswith("+") for row in rows)


def test_the_whole_model_axis_is_shorter_by_the_embeddings(
    run: RunFolder, compared: dict[str, list]
) -> None:
    table = read_table(run)
    for row, model in zip(compared["Best"], ("L3", "L6"), strict=True):
        mine = table[(table["model"] == model) & (table["x"] > 0)]
        assert row[1] == f"{100 * (mine['x_model'] / mine['x']).mean():.0f} %"
        ends = [float(row[i].split()[0]) for i in (4, 6)]
        assert ends[1] / ends[0] == pytest.approx(float(row[1].split()[0]) / 100, abs=0.03)


def test_tickets_of_the_same_dense_models_are_compared(
    run: RunFolder, compared: dict[str, list]
) -> None:
    # The scores of a dense model are the same numbers in both runs.
    assert all(row[2:4] == ["3", "1.00"] for row in compared["Rank"])
    overlaps = [float(row[3]) for row in compared["Kept"]]
    chance = [float(row[6]) for row in compared["Kept"]]
    assert all(one > other for one, other in zip(overlaps, chance, strict=True))
    assert {row[1] for row in compared["Trained"] if "L6" in row[0]} == {"2"}
    itself = against_paper.compare(run.root, run.root).sections[2].blocks
    assert {row[3] for row in itself[2].rows} == {"1.00"}
    assert {row[3] for row in itself[3].rows} == {"+0.0"}


def test_what_is_kept_can_be_read_again(run: RunFolder, tmp_path: Path) -> None:
    sizes = keep_results.keep(run.root, tmp_path, unfinished=False, heatmaps=False)
    assert set(sizes) == {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    trials, table = pd.read_parquet(tmp_path / "trials.parquet"), read_table(run)
    pd.testing.assert_frame_equal(trials, table.drop(columns=["host"]), check_dtype=False)
    tickets = pd.read_parquet(tmp_path / "tickets.parquet")
    assert set(tickets["id"]) == set(table["ticket"].dropna())
    for row in tickets.itertuples():
        bits = np.unpackbits(np.frombuffer(row.neurons_kept, "uint8"))
        kept_LN = bits[: row.neurons_layers * row.neurons_units].reshape(row.neurons_layers, -1)
        asked = read_json(run.ticket(row.id))["kept"]["neurons"]
        assert [np.flatnonzero(kept_N).tolist() for kept_N in kept_LN] == asked
    text = (tmp_path / "README.md").read_text()
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert len(links) == len(set(links)) == sum(name.startswith("figures/") for name in sizes)
    assert all((tmp_path / link).is_file() for link in links)
    assert "/models/" not in text


def test_an_unfinished_run_is_kept_only_if_asked(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", keep=lambda step: step.seed != 2)
    with pytest.raises(InputError, match="--unfinished"):
        keep_results.keep(folder.root, tmp_path / "kept", unfinished=False, heatmaps=False)
    assert not (tmp_path / "kept").exists()
    old = tmp_path / "kept" / "figures" / "old.svg"
    old.parent.mkdir(parents=True)
    old.touch()
    keep_results.keep(folder.root, tmp_path / "kept", unfinished=True, heatmaps=True)
    assert not old.exists()
    assert list((tmp_path / "kept" / "figures").glob("heads-*.svg"))
