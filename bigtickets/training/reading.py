"""Rows of data files, read through the `datasets` library with a cache of their own.

Many jobs that share one cache lock and overwrite each other; a temporary cache per file can't.
"""

import contextlib
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bigtickets.errors import InputError
from bigtickets.study.columns import (
    DELIMITERS,
    QUOTING,
    check_columns,
    columns_of,
    first_line,
)
from bigtickets.study.sources import HUB_LAYOUT, SourceFile, hub_files
from bigtickets.study.spec import TaskSpec

HUB_DATASET = "nyu-mll/glue"


@dataclass(frozen=True)
class Rows:
    """The used columns of one file."""

    path: Path
    texts: tuple[list[str], ...]
    """One or two lists of as many texts as there are rows."""
    labels: pa.Array
    """As the file has them: words, integers, decimal numbers or truth values; no nulls."""
    class_names: tuple[str, ...] | None
    """Names that the file itself gives to its integers (a parquet file's ClassLabel)."""


def read_rows(source: SourceFile) -> Rows:
    """Read one file. InputError, with file and row, if a text or label is missing.

    Rows are counted from 1, the header not counted.
    """
    columns = source.header or columns_of(source.path)
    wanted = (*source.text, source.label)
    check_columns(source.path, wanted, columns)
    ids = ("#1 ID", "#2 ID") if source.ids else ()
    table, class_names = _read_table(source, columns, (*wanted, *ids))
    if source.ids:
        table = _with_ids(table, source, ids)
    if source.skip_incomplete:
        table = table.filter(pc.is_valid(table[source.label]))
        # A text that is there but empty is a row like any other in the published files.
        for name in source.text:
            table = _replaced(table, name, pc.fill_null(table[name], ""))
    if not table.num_rows:
        raise InputError(f"{source.path}: no rows; an empty split cannot be used")
    texts = tuple(_texts(source.path, name, table[name]) for name in source.text)
    labels = _labels(source.path, source.label, table[source.label].combine_chunks())
    return Rows(source.path, texts, labels, class_names)


def fetch_glue(task: TaskSpec) -> dict[str, tuple[SourceFile, ...]]:
    """Files of a GLUE task out of the Hub's local cache or, where allowed, from the Hub.

    InputError, with what to do instead, if neither has them; HF_HUB_OFFLINE=1 is honoured.
    """
    splits = ("train", *(name for name, _ in task.validation))
    return {split: hub_files(task, split, (_fetch(task, split),)) for split in splits}


def _fetch(task: TaskSpec, split: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    name = f"{task.name}/{HUB_LAYOUT.format(split=split)}"
    try:
        return Path(hf_hub_download(HUB_DATASET, name, repo_type="dataset"))
    except (HfHubHTTPError, OSError) as error:
        raise InputError(
            f"GLUE task {task.name}: no execution.data_dir (or BIGTICKETS_DATA_DIR) is set, and "
            f"{HUB_DATASET} can't be had ({first_line(error)[:120]});\nset it to a folder with "
            f"{name}, or run `bigtickets prefetch` where there is a network"
        ) from None


def _read_table(
    source: SourceFile, columns: tuple[str, ...], wanted: tuple[str, ...]
) -> tuple[pa.Table, tuple[str, ...] | None]:
    import datasets  # a second of imports, which only the preparation of data needs

    with tempfile.TemporaryDirectory(prefix="bigtickets-") as folder, _quiet(datasets):
        # The library takes *, ? and brackets in a path for patterns; the link's name has none.
        link = Path(folder) / f"rows.{source.format}"
        link.symlink_to(source.path.resolve())
        options = {"cache_dir": str(Path(folder) / "cache"), "keep_in_memory": True}
        try:
            data = _load(datasets, source, str(link), columns, wanted, options)
        except Exception as error:  # the library's own, pandas', pyarrow's: any sort
            return _unreadable(source, wanted, error), None
        label = data.features[source.label]
        names = tuple(label.names) if isinstance(label, datasets.ClassLabel) else None
        return data.data.table.select(list(wanted)), names


def _load(
    datasets: Any,
    source: SourceFile,
    path: str,
    columns: tuple[str, ...],
    wanted: tuple[str, ...],
    options: dict[str, Any],
) -> Any:
    if source.format == "parquet":
        return datasets.Dataset.from_parquet(path, columns=list(wanted), **options)
    if source.format not in DELIMITERS:
        return datasets.Dataset.from_json(path, **options)
    # Names of columns that aren't used may be empty or stand twice.
    names = [name if name in wanted else f" {i}" for i, name in enumerate(columns)]
    return datasets.Dataset.from_csv(
        path,
        sep=DELIMITERS[source.format],
        quoting=QUOTING[source.format],
        encoding="utf-8-sig",
        header=None if source.header else 0,
        names=names,
        # Every column as text: "None" and "NA" are words, and 01 is not 1.
        features=datasets.Features({name: datasets.Value("string") for name in names}),
        keep_default_na=False,
        na_values=[""],
        # False, so that a row with too many fields is an error and not an index.
        index_col=False,
        **options,
    )


def _unreadable(source: SourceFile, wanted: tuple[str, ...], error: Exception) -> pa.Table:
    """A table without rows if that is what the error says; otherwise raise it as the user's."""
    cause = error.__cause__ or error
    if "corresponds to no data" in str(error) or "BatchSize must be greater" in str(cause):
        return pa.table({name: pa.array([], pa.string()) for name in wanted})
    if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None):
        raise cause  # a full disk is not a fault of the file
    raise InputError(
        f"{source.path}: cannot be read as {source.format}: {first_line(cause)}"
    ) from None


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No progress bars and no log lines; a row that would be cut short is an error."""
    import pandas as pd

    level, bars = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


def _texts(path: Path, name: str, column: pa.ChunkedArray) -> list[str]:
    kind = _value_type(column)
    if not (_is_text(kind) or pa.types.is_null(kind)):
        raise InputError(f"{path}: column {name!r} holds {kind}, not text; name a text column")
    _refuse_nulls(path, name, column)
    texts: list[str] = column.to_pylist()
    return texts


def _labels(path: Path, name: str, column: pa.Array) -> pa.Array:
    if isinstance(column.type, pa.BaseExtensionType):
        # A jsonl column whose rows are of several types: its values as JSON.
        values = [None if v is None else json.loads(v) for v in column.storage.to_pylist()]
        column = pa.array([v if isinstance(v, str | None) else json.dumps(v) for v in values])
    kind = _value_type(column)
    plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    if not (_is_text(kind) or any(test(kind) for test in plain)):
        raise InputError(
            f"{path}: column {name!r} holds {kind}, not labels; name a column of words or numbers"
        )
    column = column.cast(kind)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    _refuse_nulls(path, name, column)
    return column


def _value_type(column: pa.ChunkedArray | pa.Array) -> pa.DataType:
    kind = column.type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _refuse_nulls(path: Path, name: str, column: pa.ChunkedArray | pa.Array) -> None:
    if column.null_count:
        row = column.is_null().index(True).as_py() + 1
        raise InputError(
            f"{path}: row {row}: column {name!r} is empty ({column.null_count} such rows); "
            "fill it in or delete the row"
        )


def _with_ids(table: pa.Table, source: SourceFile, ids: tuple[str, ...]) -> pa.Table:
    assert source.ids is not None
    listed = {
        tuple(line.split("\t")[:2])
        for line in source.ids.read_text(encoding="utf-8-sig").splitlines()
    }
    pairs = zip(*(table[name].to_pylist() for name in ids), strict=True)
    return table.filter(pa.array([(pair in listed) == source.with_ids for pair in pairs]))


def _replaced(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)
