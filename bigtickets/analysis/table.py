"""The records of a run as one tidy table: a row per finished trial.

Names (model, task) are the manifest's: they enter no hash, so a record may carry older ones.
Records that the manifest no longer plans stay out of the table.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bigtickets.analysis.writing.words import KINDS
from bigtickets.errors import BigticketsError, DamagedError, InputError
from bigtickets.files import read_json, write_bytes
from bigtickets.study.folder import RunFolder
from bigtickets.study.parsing import load_yaml
from bigtickets.study.state import read_manifest, read_state
from bigtickets.study.steps import Step

SCHEMA = 1
"""The newest layout of records that is understood here."""
CELL = ["model", "task", "data_fraction"]
ORDER = ["parameters", *CELL, "kind", "ratio", "seed"]
COUNTS = ["encoder_parameters", "heads", "neurons", "blocks"]
COUNTS += ["train_examples", "eval_examples", "steps", "tokens"]
THROUGHPUT = ["examples_per_s", "tokens_per_s", "model_flops_per_s", "mfu", "communication"]
COLUMNS = (
    "id label model parameters task metric points data_fraction kind ratio seed x x_model x_flops "
    "score loss majority_score degenerate parameters_left "
    + " ".join([*COUNTS, "ticket", "ticket_hash", "train_s", "total_s", *THROUGHPUT])
    + " peak_memory_gb attempt host device commit finished"
).split()


@dataclass(frozen=True)
class MissingTrial:
    """A planned trial without a record."""

    step: Step
    state: str
    """failed, blocked, running or waiting."""
    why: str
    """The failure's class and message; empty if there is none."""


def read_table(folder: RunFolder, trials: Iterable[Step] | None = None) -> pd.DataFrame:
    """One row per finished trial of the manifest; the columns of COLUMNS, then other metrics.

    `trials`: only these of them.

    `points`: what one unit of the score is worth in the report, 100 but for metric modules that
    say otherwise. `x`, `x_model`, `x_flops`: removed fractions of the prunable encoder weights, of
    all parameters, of the forward FLOPs. `parameters`: of the dense model. Dense rows stand once,
    with kind `dense` and ratio 0. DamagedError if a record is broken, InputError if a newer
    version wrote it.
    """
    asked = planned_trials(folder) if trials is None else trials
    planned = [(step, folder.trial(step.id) / "record.json") for step in asked]
    rows = [_row(step, _record(path)) for step, path in planned if path.is_file()]
    table = pd.DataFrame(rows, columns=None if rows else COLUMNS)
    if not rows:
        return table
    table["points"] = table["task"].map(_points(folder)).fillna(100.0).astype(float)
    # One size per model name, however its records spell it: groups must not fall apart.
    table["parameters"] = table.groupby("model")["parameters"].transform("max")
    return table.sort_values(ORDER, key=_dense_first, kind="stable", ignore_index=True)


def in_points(table: pd.DataFrame) -> pd.DataFrame:
    """The table with scores in hundredths of the report's points, as everything shows them."""
    share = table["points"] / 100
    return table.assign(
        score=table["score"] * share, majority_score=table["majority_score"] * share
    )


def planned_trials(folder: RunFolder) -> list[Step]:
    """The trials of the manifest, in its order."""
    return [step for step in read_manifest(folder) if step.step == "trial"]


def missing_trials(folder: RunFolder) -> list[MissingTrial]:
    """Planned trials without a record, and what is known of each."""
    state = read_state(folder)
    missing = []
    for step in state.steps:
        if step.step == "trial" and state.states[step.id] != "done":
            claims = state.claims.get(step.id, [])
            last = claims[-1] if claims else None
            why = f"{last.failure}: {last.message}" if last and last.failure else ""
            missing.append(MissingTrial(step, state.states[step.id], why))
    return missing


def write_tables(table: pd.DataFrame, csv: Path, parquet: Path) -> None:
    """The table as CSV and as parquet, each whole or not at all."""
    write_bytes(csv, csv_text(table).encode())
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    write_bytes(parquet, content.getvalue())


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV; missing values are empty."""
    return table.to_csv(index=False, lineterminator="\n")


def _record(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict) or record.get("id") != path.parent.name:
        raise DamagedError(f"{path}: not the record of this trial; delete {path.parent}")
    if record.get("schema", SCHEMA) > SCHEMA:
        raise InputError(f"{path}: written by a newer bigtickets; update this one")
    return record


def _row(step: Step, record: dict[str, Any]) -> dict[str, Any]:
    """One record as a row; a key that the layout demands and that is gone is a DamagedError."""
    try:
        row = {**_what(step, record), **_results(record), **_computed(record)}
        others = {k: v for k, v in record["metrics"].items() if k not in row}
        return {name: row.get(name) for name in COLUMNS} | others
    except (KeyError, TypeError) as error:
        raise DamagedError(
            f"trials/{step.id}/record.json: {error} is missing; delete the folder to run it anew"
        ) from None


def _what(step: Step, record: dict[str, Any]) -> dict[str, Any]:
    """What was asked for."""
    counts, fractions, ticket = record["counts"], record["fractions"], record["ticket"] or {}
    whole = counts.get("dense_parameters") or counts["parameters"] / (1 - fractions["model"])
    return {
        "id": step.id,
        "label": step.label,
        "model": step.model,
        "parameters": round(whole),
        "task": step.task,
        "data_fraction": step.data_fraction,
        "kind": step.kind,
        "ratio": step.ratio,
        "seed": step.seed,
        "ticket": ticket.get("id"),
        "ticket_hash": ticket.get("hash"),
    }


def _results(record: dict[str, Any]) -> dict[str, Any]:
    """What came out."""
    counts, fractions = record["counts"], record["fractions"]
    return {
        "metric": record["headline"],
        "x": fractions["encoder"],
        "x_model": fractions["model"],
        "x_flops": fractions["flops"],
        "score": _number(record["metrics"]["score"]),
        "loss": _number(record["metrics"].get("loss")),
        "majority_score": _number(record["majority_score"]),
        "degenerate": record["degenerate"],
        "parameters_left": counts["parameters"],
        **{name: counts.get(name) for name in COUNTS},
    }


def _computed(record: dict[str, Any]) -> dict[str, Any]:
    """Where, how long and how fast."""
    commit, timings = record.get("commit") or {}, record.get("timings", {})
    throughput = record.get("throughput", {})
    return {
        "train_s": timings.get("train_s"),
        "total_s": timings.get("total_s"),
        **{name: throughput.get(name) for name in THROUGHPUT},
        "peak_memory_gb": record.get("peak_memory_gb"),
        "attempt": record.get("attempt"),
        "host": record.get("host"),
        "device": record.get("execution", {}).get("device"),
        "commit": f"{commit['id']}{'+' if commit.get('dirty') else ''}" if commit else None,
        "finished": record.get("finished"),
    }


def _points(folder: RunFolder) -> dict[str, float]:
    """Points per unit of the tasks whose metric is a module, from the study file of the run.

    It is how a score is shown, so it is in no record.
    """
    try:
        tasks = load_yaml(folder.study_yaml).get("tasks") or []
    except BigticketsError:
        return {}
    metrics = {t.get("name"): t.get("metric") for t in tasks if isinstance(t, dict)}
    return {str(t): float(m.get("points", 100)) for t, m in metrics.items() if isinstance(m, dict)}


def _number(value: float | None) -> float:
    """NaN for a metric that could not be had."""
    return float("nan") if value is None else float(value)


def _dense_first(column: pd.Series) -> pd.Series:
    """Sorts kinds as people read them; other columns as they are."""
    if column.name != "kind":
        return column
    places = {kind: i for i, kind in enumerate(KINDS)}
    return column.map(lambda kind: places.get(kind, len(places)))
