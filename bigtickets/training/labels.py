"""From labels as files have them to class indices or numbers."""

import re
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow.compute as pc

from bigtickets.errors import InputError
from bigtickets.study.spec import TaskSpec
from bigtickets.training.reading import Rows

WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")
MANY_CLASSES = 100


def class_names(task: TaskSpec, training: Sequence[Rows]) -> tuple[str, ...]:
    """Names of the classes in the order of their indices.

    The task's own if it says; the file's if it has them (a ClassLabel); otherwise the labels of
    the training split, sorted, numbers by their value. InputError if they can't be classes.
    """
    if task.labels is not None:
        names = task.labels
    elif training[0].class_names is not None:
        names = training[0].class_names
    else:
        names = _sorted({word for rows in training for word in _words(rows)[0]})
    _check(task, training, names)
    return names


def class_indices(rows: Rows, names: tuple[str, ...]) -> np.ndarray:
    """Index of each row's class, int64; InputError naming file, row and label if it is unknown.

    A label is a class name or, where no class is named by a number, a class index.
    """
    words, codes = _words(rows)
    known = {_canonical(name): index for index, name in enumerate(names)}
    if not any(WHOLE_NUMBER.fullmatch(name) for name in known):
        known |= {str(index): index for index in range(len(names))}
    indices = np.array([known.get(word, -1) for word in words], np.int64)[codes]
    if (indices < 0).any():
        row = int(np.argmax(indices < 0))
        raise InputError(
            f"{rows.path}: row {row + 1}: label {words[codes[row]]!r} is none of the classes "
            f"{_shown(names)} (those of the study file or of the training split)"
        )
    return indices


def numbers(rows: Rows) -> np.ndarray:
    """Labels of a regression, float32; InputError naming file and row if one is no number."""
    words, codes = _words(rows)
    values = np.array([_number(word) for word in words], np.float32)[codes]
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise InputError(
            f"{rows.path}: row {row + 1}: label {words[codes[row]]!r} is not a finite number, "
            "which the task's metric needs; mend the row or choose a metric of classes"
        )
    return values


def _words(rows: Rows) -> tuple[list[str], np.ndarray]:
    """(different labels as words, index into them of each row)."""
    coded = pc.dictionary_encode(rows.labels)
    values: list[object] = coded.dictionary.to_pylist()
    if rows.class_names is not None:
        values = [_named(value, rows.class_names) for value in values]
    return [_canonical(v) for v in values], coded.indices.to_numpy(zero_copy_only=False)


def _named(value: object, names: tuple[str, ...]) -> object:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _canonical(value: object) -> str:
    """The same word for 1, 1.0, "1" and " 1": one file may have what another one calls so."""
    if isinstance(value, bool):
        return str(value).lower()
    word = str(value).strip()
    return str(int(float(word))) if WHOLE_NUMBER.fullmatch(word) else word


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _sorted(words: Collection[str]) -> tuple[str, ...]:
    if all(np.isfinite(_number(word)) for word in words):
        return tuple(sorted(words, key=float))
    return tuple(sorted(words))


def _check(task: TaskSpec, training: Sequence[Rows], names: tuple[str, ...]) -> None:
    place = f"{training[0].path}: column {task.label!r}"
    examples = sum(len(rows.labels) for rows in training)
    if len({_canonical(name) for name in names}) < max(2, len(names)):
        raise InputError(
            f"{place} has the classes {_shown(names)}; "
            "a task needs two different ones at least (or a metric of numbers)"
        )
    if "" in names:
        raise InputError(f"{place} has empty labels; fill them in or delete the rows")
    if len(names) > MANY_CLASSES and len(names) > examples / 2:
        raise InputError(
            f"{place} has {len(names)} different values in {examples} rows, too many for classes; "
            "name another column, or a metric of numbers (pearson_spearman)"
        )


def _shown(names: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in names[:8])
    return listed + (f" and {len(names) - 8} more" if len(names) > 8 else "")
