"""Where the rows of a task are: which files, which columns, and what they are called there."""

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bigtickets.errors import InputError
from bigtickets.files import sha256_file
from bigtickets.study.columns import FORMATS, check_columns, columns_of, format_of
from bigtickets.study.modules import science_of
from bigtickets.study.spec import TaskSpec

DATA_DIR_VARIABLE = "BIGTICKETS_DATA_DIR"
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$")
HUB_LAYOUT = "{split}-00000-of-00001.parquet"

# The distribution of gluebenchmark.com: names of its folders, and what its columns are called
# where that differs from the Hub's.
ORIGINAL_FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "qqp": "QQP",
    "stsb": "STS-B",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}
ORIGINAL_COLUMNS = {
    "mrpc": (("#1 String", "#2 String"), "Quality"),
    "qqp": (("question1", "question2"), "is_duplicate"),
    "stsb": (("sentence1", "sentence2"), "score"),
    "mnli": (("sentence1", "sentence2"), "gold_label"),
}
COLA_HEADER = ("source", "label", "star", "sentence")
MRPC_ALL = "msr_paraphrase_train.txt"
MRPC_IDS = ("dev_ids.tsv", "mrpc_dev_ids.tsv")


@dataclass(frozen=True)
class SourceFile:
    """One file of one split."""

    path: Path
    format: str
    text: tuple[str, ...]
    """The text columns as this file calls them."""
    label: str
    """The label column as this file calls it."""
    header: tuple[str, ...] | None = None
    """Column names of a csv or tsv file that has no header line."""
    skip_incomplete: bool = False
    """GLUE's own tsv files have broken rows; the published counts leave them out."""
    ids: Path | None = None
    """MRPC: pairs of ids that belong to the validation split."""
    with_ids: bool = False
    """Whether this split has the rows of `ids`, or the others."""


def identify(task: TaskSpec, key: str = "tasks") -> TaskSpec:
    """A custom task with its identity: a digest of the files' contents and of how they are read.

    Neither where the files lie nor their order within a split matters: they are read in the order
    of their digests. InputError if a file or a column is missing.
    """
    splits = {"train": task.train} | dict(task.validation)
    for split, files in splits.items():
        for name in files:
            path = Path(name)
            if not path.is_file():
                raise InputError(f"{key}.{split}: {path}: no such file")
            try:
                check_columns(path, (*task.text, task.label), columns_of(path))
            except InputError as error:
                raise InputError(f"{key}.{split}: {error}") from None
    science = {
        "text": task.text,
        "label": task.label,
        "metric": task.metric if task.module is None else science_of(task.module),
        "labels": task.labels,
        "splits": [[_content(Path(f)) for f in _ordered(files)] for files in splits.values()],
    }
    digest = hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()
    return dataclasses.replace(task, identity=f"files:{digest[:32]}")


def data_folder(data_dir: str | None) -> Path | None:
    """Folder of the GLUE files: the study's, else the environment's; None means the Hub."""
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    return Path(folder) if folder else None


def split_files(task: TaskSpec, data_dir: str | None) -> dict[str, tuple[SourceFile, ...]] | None:
    """Files of the training split and of each evaluation split; None if they are on the Hub."""
    if task.glue:
        folder = data_folder(data_dir)
        return None if folder is None else glue_files(task, folder)
    splits = {"train": task.train} | dict(task.validation)
    return {split: custom_files(task, files) for split, files in splits.items()}


def custom_files(task: TaskSpec, files: tuple[str, ...]) -> tuple[SourceFile, ...]:
    """The files of one split, in the order in which they are read."""
    return tuple(
        SourceFile(Path(f), format_of(Path(f)), task.text, task.label) for f in _ordered(files)
    )


def glue_files(task: TaskSpec, folder: Path) -> dict[str, tuple[SourceFile, ...]]:
    """The files of a GLUE task below `folder`, in whichever of three layouts they are.

    The Hub's (`sst2/train-00000-of-00001.parquet`), the original download's (`SST-2/train.tsv`,
    with its own column names), or `sst2/train.csv` (or tsv, jsonl, parquet; `dev` or
    `validation`) with the Hub's column names. InputError if a split is in none of them.
    """
    places = {name: folder / name for name in (task.name, ORIGINAL_FOLDERS[task.name])}
    there = [place for place in places.values() if place.is_dir()]
    lacking = "train"
    for place in there:
        found = {}
        for split in ("train", *(name for name, _ in task.validation)):
            if not (files := _glue_split(task, place, split)):
                lacking = split
                break
            found[split] = files
        else:
            return found
    raise InputError(_not_found(task, folder, there, lacking))


def hub_files(task: TaskSpec, split: str, paths: tuple[Path, ...]) -> tuple[SourceFile, ...]:
    """Parquet files in the Hub's layout; InputError if a shard is missing."""
    for path in paths:
        match = SHARD.search(path.name)
        if match and int(match[2]) != len(paths):
            raise InputError(
                f"{path.parent}: {len(paths)} of {int(match[2])} files of split {split} are there; "
                "copy the others too"
            )
    return tuple(SourceFile(path, "parquet", task.text, task.label) for path in paths)


def _ordered(files: tuple[str, ...]) -> list[str]:
    return sorted(files, key=lambda name: _content(Path(name))) if len(files) > 1 else list(files)


def _content(path: Path) -> str:
    return f"{format_of(path)}:{sha256_file(path)}"


def _glue_split(task: TaskSpec, place: Path, split: str) -> tuple[SourceFile, ...]:
    shards = tuple(p for p in sorted(place.glob(f"{split}-*.parquet")) if SHARD.search(p.name))
    if shards:
        return hub_files(task, split, shards)
    for stem in dict.fromkeys((split, split.replace("validation", "dev"))):
        for suffix in ("tsv", "csv", "jsonl", "json", "parquet"):
            path = place / f"{stem}.{suffix}"
            if path.is_file():
                return (_glue_file(task, path),)
    return _whole_mrpc(place, split) if task.name == "mrpc" else ()


def _glue_file(task: TaskSpec, path: Path) -> SourceFile:
    """The header says whether a file has the Hub's columns or the original's."""
    columns = columns_of(path)
    source = SourceFile(path, format_of(path), task.text, task.label)
    source = dataclasses.replace(source, skip_incomplete=source.format == "tsv")
    if {*task.text, task.label} <= set(columns):
        return source
    if task.name == "cola" and source.format == "tsv" and len(columns) == len(COLA_HEADER):
        return dataclasses.replace(source, header=COLA_HEADER)
    text, label = ORIGINAL_COLUMNS.get(task.name, (task.text, task.label))
    if {*text, label} <= set(columns):
        return dataclasses.replace(source, text=text, label=label)
    check_columns(path, (*task.text, task.label), columns)
    raise AssertionError("a column was missing")


def _whole_mrpc(place: Path, split: str) -> tuple[SourceFile, ...]:
    """Microsoft's own file holds both splits, and a list of ids tells them apart."""
    path = place / MRPC_ALL
    ids = next((place / name for name in MRPC_IDS if (place / name).is_file()), None)
    if not path.is_file() or ids is None:
        return ()
    text, label = ORIGINAL_COLUMNS["mrpc"]
    check_columns(path, (*text, label), columns_of(path))
    return (SourceFile(path, "tsv", text, label, None, True, ids=ids, with_ids=split != "train"),)


def _not_found(task: TaskSpec, folder: Path, there: list[Path], split: str) -> str:
    names = f"{task.name}/ or {ORIGINAL_FOLDERS[task.name]}/"
    if there:
        looked = f"{there[-1]}: no {split} split of GLUE task {task.name}"
    elif folder.is_dir():
        looked = f"{folder}: no folder {names} of GLUE task {task.name}"
    else:
        looked = f"{folder}: no such folder, looked for GLUE task {task.name}"
    hub = HUB_LAYOUT.format(split=split)
    return (
        f"{looked}; put {task.name}/{hub} (or {split}.{'/'.join(FORMATS)}) there,\n"
        f"or set execution.data_dir (or {DATA_DIR_VARIABLE}) to the folder that has it"
    )
