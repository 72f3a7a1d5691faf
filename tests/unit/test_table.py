"""Records to the tidy table: names, missing trials, broken records, files."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _synthetic_run import make_run, shared_run, study

from bigtickets.analysis.table import (
    COLUMNS,
    csv_text,
    in_points,
    missing_trials,
    planned_trials,
    read_table,
    write_tables,
)
from bigtickets.analysis.writing.terminal import summary_table
from bigtickets.errors import DamagedError, InputError
from bigtickets.files import read_json, write_json
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import MetricModule, StudySpec
from bigtickets.study.state import write_run

SMALL = study(models=("L3",), tasks=("movie",), seeds=(0, 1), ratios=(0.0, 0.5))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return read_table(shared_run())


@pytest.fixture
def small(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", SMALL)


def first_record(folder: RunFolder) -> Path:
    return sorted(folder.trials.glob("*/record.json"))[0]


def test_a_row_per_finished_trial(table: pd.DataFrame) -> None:
    planned = planned_trials(shared_run())
    assert len(planned) == 2 * 2 * 3 * (1 + 5 * 2)
    assert len(table) == len(planned) - 2
    assert table["id"].is_unique
    assert list(table.columns[: len(COLUMNS)]) == COLUMNS
    assert {"accuracy", "f1"} <= set(table.columns)


def test_dense_rows_stand_once(table: pd.DataFrame) -> None:
    dense = table[table["ratio"] == 0]
    assert set(dense["kind"]) == {"dense"}
    assert len(dense) == 2 * 2 * 3
    assert (dense["x"] == 0).all()
    assert dense["ticket"].isna().all()


def test_order_is_for_people(table: pd.DataFrame) -> None:
    assert list(table["model"].unique()) == ["L3", "L6"]
    assert list(table["kind"].unique()) == ["dense", "winning", "random"]


def test_one_size_per_model(table: pd.DataFrame) -> None:
    assert (table.groupby("model")["parameters"].nunique() == 1).all()
    assert (table["parameters_left"] <= table["parameters"]).all()


def test_size_of_a_record_that_lacks_it(small: RunFolder) -> None:
    whole = read_table(small)["parameters"].iloc[0]
    for path in small.trials.glob("*/record.json"):
        record = read_json(path)
        del record["counts"]["dense_parameters"]
        write_json(path, record)
    assert read_table(small)["parameters"].unique() == pytest.approx(whole, abs=1)


def test_names_come_from_the_manifest(small: RunFolder) -> None:
    renamed = dataclasses.replace(SMALL.models[0], name="another name")
    write_run(dataclasses.replace(SMALL, models=(renamed,)), small)
    assert set(read_table(small)["model"]) == {"another name"}


def test_records_that_are_no_longer_planned_stay_out(small: RunFolder) -> None:
    write_run(dataclasses.replace(SMALL, seeds=(0,)), small)
    assert set(read_table(small)["seed"]) == {0}


def test_a_metric_that_is_missing_is_nan(small: RunFolder) -> None:
    path = first_record(small)
    record = read_json(path)
    record["metrics"]["loss"] = None
    write_json(path, record)
    table = read_table(small).set_index("id")
    assert np.isnan(table.loc[path.parent.name, "loss"])


def test_missing_trials_say_what_is_known(table: pd.DataFrame) -> None:
    missing = missing_trials(shared_run())
    assert {m.step.label for m in missing} == {
        "L6/tweets/random-0.6/seed2",
        "L6/tweets/random-0.8/seed2",
    }
    failed = [m for m in missing if m.state == "failed"]
    assert [m.why for m in failed] == ["oom: out of memory at micro-batch 32"]


def test_no_trial_gives_an_empty_table(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", SMALL, keep=lambda step: False)
    table = read_table(folder)
    assert len(table) == 0
    assert list(table.columns) == COLUMNS
    assert summary_table(table) == "no trial has finished yet"


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "another"}'])
def test_a_broken_record_is_named(small: RunFolder, text: str) -> None:
    path = first_record(small)
    path.write_text(text)
    with pytest.raises(DamagedError, match=path.parent.name):
        read_table(small)


def test_a_record_without_a_key_is_named(small: RunFolder) -> None:
    path = first_record(small)
    record = read_json(path)
    del record["fractions"]
    write_json(path, record)
    with pytest.raises(DamagedError, match="fractions"):
        read_table(small)


def test_a_newer_record_is_refused(small: RunFolder) -> None:
    path = first_record(small)
    write_json(path, {**read_json(path), "schema": 2})
    with pytest.raises(InputError, match="newer"):
        read_table(small)


def test_both_files_hold_the_table(table: pd.DataFrame, tmp_path: Path) -> None:
    csv, parquet = tmp_path / "t.csv", tmp_path / "t.parquet"
    write_tables(table, csv, parquet)
    for read in (pd.read_csv(csv), pd.read_parquet(parquet)):
        assert list(read["id"]) == list(table["id"])
        assert read["score"].to_numpy() == pytest.approx(table["score"].to_numpy())
        assert read["degenerate"].notna().sum() == table["degenerate"].notna().sum()


def test_csv_keeps_awkward_names(tmp_path: Path) -> None:
    spec: StudySpec = study(models=('a,"b"',), tasks=("<i>\n",), seeds=(0,), ratios=(0.0,))
    table = read_table(make_run(tmp_path / "run", spec))
    again = pd.read_csv(io.StringIO(csv_text(table)))
    assert again.loc[0, "model"] == 'a,"b"'
    assert again.loc[0, "task"] == "<i>\n"


def test_terminal_table_is_aligned(table: pd.DataFrame) -> None:
    lines = summary_table(table).splitlines()
    assert len(lines) == 1 + 2 * 2 * 11
    assert lines[0].split()[:5] == ["model", "task", "kind", "ratio", "removed"]
    assert "\N{MINUS SIGN}" in lines[6]
    ends = {line.index(" %  3") for line in lines if " %  3" in line}
    assert len(ends) == 1
    assert max(map(len, lines)) < 110


def test_records_are_json(table: pd.DataFrame) -> None:
    assert json.loads(table.to_json(orient="records"))[0]["kind"] == "dense"


def test_points_of_a_metric_module(small: RunFolder) -> None:
    before = read_table(small)
    assert set(before["points"]) == {100.0}
    assert in_points(before)["score"].equals(before["score"])
    module = MetricModule("cost", "/scripts/cost.py", "0" * 64, points=0.5)
    task = dataclasses.replace(SMALL.tasks[0], module=module)
    write_run(dataclasses.replace(SMALL, tasks=(task,)), small)
    table = read_table(small)
    assert set(table["points"]) == {0.5}
    assert table["score"].equals(before["score"]), "the table has the metric's own units"
    for name in ("score", "majority_score"):
        assert 100 * in_points(table)[name].to_numpy() == pytest.approx(table[name] * 0.5)
