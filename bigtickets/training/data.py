"""Tokenises a task once for one model's tokenizer; trials only read the result.

Files are safetensors with ragged tensors, so that nothing is unpickled and nothing is padded
before its batch is known. `record.json` comes last: its presence means that all is there.
"""

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import bigtickets
from bigtickets.errors import BigticketsError, InputError
from bigtickets.files import replacing, sha256_file, write_json
from bigtickets.study.sources import SourceFile, split_files
from bigtickets.study.spec import ModelSpec, TaskSpec
from bigtickets.study.tasks import GLUE
from bigtickets.training.labels import class_indices, class_names, numbers
from bigtickets.training.reading import Rows, fetch_glue, read_rows
from bigtickets.training.splits import (
    RECORD,
    Split,
    evaluation_names,
    load_record,
    load_split,
    subset,
)
from bigtickets.training.tokenising import Ragged, load_tokenizer, padding_id, tokenise

__all__ = [
    "Split",
    "evaluation_names",
    "fetch_glue",
    "load_record",
    "load_split",
    "prepare",
    "subset",
]

SCHEMA = 1


def prepare(
    model: ModelSpec,
    task: TaskSpec,
    max_length: int,
    folder: Path,
    data_dir: str | None = None,
    tick: Callable[[], None] | None = None,
) -> Path:
    """Write the splits of `task`, tokenised for `model`, into `folder`, and return it.

    If they are there and whole, nothing is done. `tick` is called between blocks of rows; an
    exception from it stops the work, which leaves whole files or none.
    """
    request = {
        "schema": SCHEMA,
        "step": "data",
        "id": folder.name,
        "task": task.name,
        "task_identity": task.identity,
        "model_identity": model.identity,
        "max_length": max_length,
    }
    if _there(folder, request):
        return folder
    tick = tick or _nothing
    tokenizer = load_tokenizer(model)
    splits = _read(task, data_dir, tick)
    names = None if task.regression else class_names(task, splits["train"])
    labels = {split: _labels(rows, names) for split, rows in splits.items()}
    facts: dict[str, dict[str, Any]] = {}
    for key, split in _keys(task).items():
        ragged = _tokenise(tokenizer, task, split, splits[split], max_length, tick)
        facts[key] = {"name": split, **_store(folder / f"{key}.safetensors", ragged, labels[split])}
        facts[key] |= _label_facts(labels[split], names)
        token_types = ragged.token_type_ids is not None
    write_json(
        folder / RECORD,
        request
        | {
            "regression": task.regression,
            "classes": None if names is None else list(names),
            "outputs": 1 if names is None else len(names),
            "tokenizer": _tokenizer_facts(tokenizer, token_types),
            "splits": facts,
            "versions": _versions(),
        },
    )
    return folder


def _there(folder: Path, request: dict[str, Any]) -> bool:
    """Whether the record is there, of this request, and every file is as it says."""
    try:
        record = load_record(folder)
    except BigticketsError:
        return False
    try:
        same = {key: record[key] for key in request} == request
        return same and all(
            sha256_file(folder / f"{name}.safetensors") == facts["sha256"]
            for name, facts in record["splits"].items()
        )
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def _nothing() -> None:
    pass


def _keys(task: TaskSpec) -> dict[str, str]:
    """Stored name -> the source's name of each split."""
    keys = {"train": "train"}
    for number, (name, _) in enumerate(task.validation):
        keys["validation" if number == 0 else f"validation_{number}"] = name
    return keys


def _read(task: TaskSpec, data_dir: str | None, tick: Callable[[], None]) -> dict[str, list[Rows]]:
    files = split_files(task, data_dir)
    splits: dict[str, list[Rows]] = {}
    for split, sources in (fetch_glue(task) if files is None else files).items():
        splits[split] = []
        for source in sources:
            tick()
            splits[split].append(read_rows(source))
        _check_count(task, split, sources, splits[split])
    return splits


def _check_count(
    task: TaskSpec, split: str, sources: Sequence[SourceFile], rows: list[Rows]
) -> None:
    count = sum(len(part.labels) for part in rows)
    if task.glue and count != GLUE[task.name].rows[split]:
        raise InputError(
            f"{sources[0].path}: {count} rows, but split {split} of GLUE task {task.name} has "
            f"{GLUE[task.name].rows[split]};\nfetch the file again, or declare a part of it as "
            "a task of your own"
        )


def _labels(rows: list[Rows], names: tuple[str, ...] | None) -> np.ndarray:
    return np.concatenate(
        [numbers(part) if names is None else class_indices(part, names) for part in rows]
    )


def _tokenise(
    tokenizer: Any,
    task: TaskSpec,
    split: str,
    rows: list[Rows],
    max_length: int,
    tick: Callable[[], None],
) -> Ragged:
    texts = [[text for part in rows for text in part.texts[i]] for i in range(len(task.text))]
    ragged = tokenise(tokenizer, texts, max_length, tick)
    lengths = np.diff(ragged.offsets)
    if not lengths.all():
        raise InputError(
            f"task {task.name}: row {int(np.argmin(lengths)) + 1} of split {split} has no token "
            "for this model's tokenizer; delete it"
        )
    return ragged


def _store(path: Path, ragged: Ragged, labels: np.ndarray) -> dict[str, Any]:
    """Write one split; what the record says about the file."""
    tensors = {"input_ids": ragged.input_ids, "offsets": ragged.offsets, "labels": labels}
    if ragged.token_type_ids is not None:
        tensors["token_type_ids"] = ragged.token_type_ids
    with replacing(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary)
        digest = sha256_file(temporary)
    return {
        "sha256": digest,
        "rows": len(labels),
        "tokens": len(ragged.input_ids),
        "longest": int(np.diff(ragged.offsets).max()),
        "truncated": ragged.truncated,
    }


def _label_facts(labels: np.ndarray, names: tuple[str, ...] | None) -> dict[str, Any]:
    if names is None:
        values = labels.astype(np.float64)
        return {
            "class_counts": None,
            "majority_share": None,
            "label_mean": float(values.mean()),
            "label_std": float(values.std()),
        }
    counts = np.bincount(labels, minlength=len(names))
    share = float(counts.max() / len(labels))
    return {"class_counts": counts.tolist(), "majority_share": share}


def _tokenizer_facts(tokenizer: Any, token_types: bool) -> dict[str, Any]:
    return {
        "class": type(tokenizer).__name__,
        "vocabulary": len(tokenizer),
        "pad_id": padding_id(tokenizer),
        "token_types": token_types,
    }


def _versions() -> dict[str, str]:
    packages = ("datasets", "tokenizers", "transformers")
    return {"bigtickets": bigtickets.__version__} | {
        package: importlib.metadata.version(package) for package in packages
    }
