"""Which columns a data file has, read from its first bytes."""

import csv
import difflib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from bigtickets.errors import InputError

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")
"""By suffix. csv has quotes, tsv has none, json is a list of objects or the same as jsonl."""
DELIMITERS = {"csv": ",", "tsv": "\t"}
# In a tsv file a quotation mark is a character like any other: GLUE's have unbalanced ones, and
# a reader that takes them for quotes silently merges rows.
QUOTING: dict[str, Literal[0, 3]] = {"csv": csv.QUOTE_MINIMAL, "tsv": csv.QUOTE_NONE}


def format_of(path: Path) -> str:
    """The format by the suffix; InputError for others. `.txt` is read as tsv."""
    suffix = path.suffix.removeprefix(".").lower()
    if suffix == "txt":
        return "tsv"
    if suffix not in FORMATS:
        raise InputError(
            f"{path}: files of kind {path.suffix!r} are not read; give {', '.join(FORMATS)}"
        )
    return suffix


def columns_of(path: Path) -> tuple[str, ...]:
    """Names of the columns, in order; InputError if the file is missing, empty or unreadable."""
    kind = format_of(path)
    try:
        if kind == "parquet":
            return _parquet_columns(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            if kind in DELIMITERS:
                rows = csv.reader(file, delimiter=DELIMITERS[kind], quoting=QUOTING[kind])
                return tuple(next(row for row in rows if row))
            return _json_columns(path, next(line for line in file if line.strip()))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except StopIteration:
        raise InputError(f"{path}: empty; expected a header and rows") from None
    except (ValueError, OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as {kind}: {first_line(error)}") from None


def check_columns(path: Path, wanted: Collection[str], there: Collection[str]) -> None:
    """InputError that names what is missing, what there is, and what may have been meant."""
    for name in wanted:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{path}: no column {name!r}; it has {', '.join(there)}{hint}")
        if list(there).count(name) > 1:
            raise InputError(f"{path}: two columns are called {name!r}; rename one")


def first_line(error: BaseException) -> str:
    """What an error says, short enough for one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _parquet_columns(path: Path) -> tuple[str, ...]:
    import pyarrow.parquet  # not needed for the other formats, and slow to import

    return tuple(pyarrow.parquet.read_schema(path).names)


def _json_columns(path: Path, line: str) -> tuple[str, ...]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        # A list over several lines, or a single pretty-printed object.
        row = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(row, list):
        row = row[0] if row else {}
    if not isinstance(row, dict):
        raise InputError(f"{path}: expected one JSON object per row, found {str(row)[:40]}")
    return tuple(row)
