"""Reading, labelling, tokenising and storing a task's splits; subsets of them."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtickets.errors import DamagedError, InputError, Interrupted
from bigtickets.study.sources import SourceFile, custom_files, glue_files, identify
from bigtickets.study.spec import ModelSpec, TaskSpec
from bigtickets.study.tasks import GLUE, glue_task
from bigtickets.training import tokenising
from bigtickets.training.data import (
    evaluation_names,
    fetch_glue,
    load_record,
    load_split,
    prepare,
    subset,
)
from bigtickets.training.labels import class_indices, class_names, numbers
from bigtickets.training.reading import Rows, read_rows

ROOT = Path(__file__).parents[2]
GLUE_FOLDER = Path(
    os.environ.get("BIGTICKETS_DATA_DIR") or ROOT.parent / "shared" / "data" / "glue"
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "b", "c", "d", "good", "bad", "none", "na", '"', ",", "##s"]


@pytest.fixture
def model(tmp_path: Path) -> ModelSpec:
    """A model folder with nothing but a config and a WordPiece vocabulary."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "vocab.txt").write_text("\n".join(SPECIAL + WORDS) + "\n")
    return ModelSpec(name="tiny", path=str(folder), identity="local:0")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Hub, and an empty cache of it, whoever runs the tests."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("BIGTICKETS_DATA_DIR", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def write(path: Path, text: str) -> Path:
    """A file, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def custom(train: Path | tuple[Path, ...], validation: Path, **changes: object) -> TaskSpec:
    """A task over the columns `text` and `label`."""
    files = train if isinstance(train, tuple) else (train,)
    task = TaskSpec(
        name="own",
        identity="",
        text=("text",),
        label="label",
        metric="accuracy",
        labels=None,
        train=tuple(str(file) for file in files),
        validation=(("validation", (str(validation),)),),
    )
    return identify(dataclasses.replace(task, **changes))  # type: ignore[arg-type]


def source(path: Path, **changes: object) -> SourceFile:
    """One file with the columns `text` and `label`."""
    file = SourceFile(path, path.suffix.removeprefix("."), ("text",), "label")
    return dataclasses.replace(file, **changes)  # type: ignore[arg-type]


def labelled(*labels: object, names: tuple[str, ...] | None = None) -> Rows:
    """Rows with these labels."""
    return Rows(Path("rows.tsv"), (["a"] * len(labels),), pa.array(labels), names)


# Reading


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    text = 'text\tlabel\n"a b\t1\nc\t0\nd"\t1\n'
    rows = read_rows(source(write(tmp_path / "a.tsv", text)))
    assert rows.texts == (['"a b', "c", 'd"'],)
    assert rows.labels.to_pylist() == ["1", "0", "1"]


def test_csv_has_quotes(tmp_path: Path) -> None:
    text = 'n,text,label\n1,"a, ""b""\nc",x\n2,d,y\n'
    rows = read_rows(source(write(tmp_path / "a.csv", text)))
    assert rows.texts == (['a, "b"\nc', "d"],)
    assert rows.labels.to_pylist() == ["x", "y"]


def test_words_that_look_like_nothing_are_words(tmp_path: Path) -> None:
    text = "text\tlabel\nNone\tnull\nNA\tnan\nn/a\tNone\n"
    rows = read_rows(source(write(tmp_path / "a.tsv", text)))
    assert rows.texts == (["None", "NA", "n/a"],)
    assert rows.labels.to_pylist() == ["null", "nan", "None"]


def test_windows_files_and_strange_paths(tmp_path: Path) -> None:
    path = write(tmp_path / "a [1]*?" / "b{2}.tsv", "\ufefftext\tlabel\r\na\t1\r\nb\t0\r\n")
    assert read_rows(source(path)).labels.to_pylist() == ["1", "0"]


def test_unused_columns_may_be_called_anything(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",x,x,text,label\n0,1,2,a,p\n1,1,2,b,q\n")
    assert read_rows(source(path)).texts == (["a", "b"],)


def test_jsonl_and_json(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": True}, {"text": "", "label": False, "more": 1}]
    lines = "\n".join(json.dumps(row) for row in rows)
    for path in (
        write(tmp_path / "a.jsonl", lines),
        write(tmp_path / "a.json", json.dumps(rows)),
        write(tmp_path / "b.json", json.dumps(rows, indent=1)),
    ):
        read = read_rows(source(path))
        assert read.texts == (["a", ""],)
        assert read.labels.to_pylist() == [True, False]


def test_jsonl_with_labels_of_two_sorts(tmp_path: Path) -> None:
    labels = [1, "0", "x", 2.0]
    lines = "".join(json.dumps({"text": "a", "label": label}) + "\n" for label in labels)
    rows = read_rows(source(write(tmp_path / "a.jsonl", lines)))
    assert class_indices(rows, ("0", "1", "2", "x")).tolist() == [1, 0, 3, 2]


def test_parquet_with_class_labels(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    pq.write_table(data.data.table, tmp_path / "a.parquet")
    rows = read_rows(source(tmp_path / "a.parquet"))
    assert rows.class_names == ("no", "yes")
    assert class_indices(rows, ("yes", "no")).tolist() == [0, 1]


BROKEN = {
    "no rows": ("a.tsv", "text\tlabel\n", r"a\.tsv: no rows"),
    "empty": ("a.csv", "", r"a\.csv: empty; expected a header"),
    "empty jsonl": ("a.jsonl", "", r"a\.jsonl: empty"),
    "column": ("a.tsv", "txt\tlabel\na\t1\n", r"no column 'text'; it has txt, label; did you mean"),
    "no text": ("a.tsv", "text\tlabel\na\t1\n\t0\n", r"a\.tsv: row 2: column 'text' is empty"),
    "no label": ("a.tsv", "text\tlabel\na\n", r"row 1: column 'label' is empty \(1 such rows\)"),
    "null": ("a.jsonl", '{"text": "a", "label": 1}\n{"text": null, "label": 1}\n', "row 2: column"),
    "long row": ("a.tsv", "text\tlabel\na\t1\nb\t1\t2\n", r"as tsv: .*Expected 2 fields in line 3"),
    "long rows": ("a.tsv", "text\tlabel\na\t1\t2\nb\t1\t2\n", r"cannot be read as tsv"),
    "open quote": ("a.csv", 'text,label\n"a,1\nb,2\n', r"cannot be read as csv: .*EOF inside"),
    "list": ("a.jsonl", '{"text": "a", "label": [1]}\n', r"column 'label' holds list.*not labels"),
    "not json": ("a.jsonl", '{"text": "a", "label": 1}\n{"text\n', r"cannot be read as jsonl"),
    "number": ("a.jsonl", '{"text": 1, "label": 1}\n', r"column 'text' holds int64, not text"),
    "not parquet": ("a.parquet", "junk", r"a\.parquet: cannot be read as parquet"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    name, text, message = BROKEN[case]
    with pytest.raises(InputError, match=message) as caught:
        read_rows(source(write(tmp_path / name, text)))
    assert str(tmp_path / name) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", ""), "the library's own log lines are not for users"


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"text\tlabel\n" + b"a\t1\n" * 9 + b"caf\xe9\t0\n")
    with pytest.raises(InputError, match=r"a\.tsv: cannot be read as tsv: .*utf-8"):
        read_rows(source(path))


def test_not_a_number_is_no_label(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": [0.0, float("nan")]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="row 2: column 'label' is empty"):
        read_rows(source(tmp_path / "a.parquet"))


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    for path in (
        write(tmp_path / "a.tsv", "\n\ntext\tlabel\n\na\tp\n\nb\tq\n\n"),
        write(
            tmp_path / "a.jsonl",
            '\n{"text": "a", "label": "p"}\n\n{"text": "b", "label": "q"}\n\n',
        ),
    ):
        rows = read_rows(source(path))
        assert rows.texts == (["a", "b"],)
        assert rows.labels.to_pylist() == ["p", "q"]


def test_parquet_without_rows(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no rows"):
        read_rows(source(tmp_path / "a.parquet"))


def test_no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    read_rows(source(write(tmp_path / "a.tsv", "text\tlabel\na\t1\n")))
    assert not (tmp_path / "cache").exists()


# GLUE's original files


def test_original_cola(tmp_path: Path) -> None:
    line = 'gj04\t{}\t{}\tThe "cat sat, none.\n'
    for split in ("train", "dev"):
        write(tmp_path / "CoLA" / f"{split}.tsv", line.format(1, "") + line.format(0, "*"))
    rows = read_rows(glue_files(glue_task("cola"), tmp_path)["train"][0])
    assert rows.texts == (['The "cat sat, none.'] * 2,)
    assert class_indices(rows, ("unacceptable", "acceptable")).tolist() == [1, 0]


def test_original_qqp_drops_broken_rows(tmp_path: Path) -> None:
    text = (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "1\t1\t2\ta\tb\t1\n2\t3\t4\tcut off\n3\t5\t6\t\tno first question\t0\n"
    )
    for split in ("train", "dev"):
        write(tmp_path / "QQP" / f"{split}.tsv", text)
    rows = read_rows(glue_files(glue_task("qqp"), tmp_path)["train"][0])
    assert rows.texts == (["a", ""], ["b", "no first question"])
    assert rows.labels.to_pylist() == ["1", "0"]


def test_original_mrpc_in_one_file(tmp_path: Path) -> None:
    write(
        tmp_path / "MRPC" / "msr_paraphrase_train.txt",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
        '1\t10\t11\ta "quote\tb\r\n0\t12\t13\tc\td\r\n1\t14\t15\te\tf\r\n',
    )
    write(tmp_path / "MRPC" / "dev_ids.tsv", "12\t13\n")
    files = glue_files(glue_task("mrpc"), tmp_path)
    assert read_rows(files["train"][0]).texts == (['a "quote', "e"], ["b", "f"])
    assert read_rows(files["validation"][0]).texts == (["c"], ["d"])


def test_original_labels_are_words(tmp_path: Path) -> None:
    text = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n1\tc\td\tentailment\n"
    for split in ("train", "dev"):
        write(tmp_path / "RTE" / f"{split}.tsv", text)
    rows = read_rows(glue_files(glue_task("rte"), tmp_path)["train"][0])
    assert class_indices(rows, GLUE["rte"].labels or ()).tolist() == [1, 0]


# Labels


def own(labels: tuple[str, ...] | None = None) -> TaskSpec:
    """A task whose label column holds classes."""
    return TaskSpec("own", "", ("text",), "label", "accuracy", labels)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("neg", "pos", "neg"), ("neg", "pos")),
        (("10", "9", "1"), ("1", "9", "10")),
        ((2.0, 0.0, 1.0), ("0", "1", "2")),
        ((True, False), ("false", "true")),
        (("-1", "1", "0.5"), ("-1", "0.5", "1")),
    ],
)
def test_classes_of_the_training_split(labels: tuple[object, ...], names: tuple[str, ...]) -> None:
    rows = labelled(*labels)
    assert class_names(own(), [rows]) == names
    assert names[class_indices(rows, names)[0]] in str(labels[0]).lower()


def test_files_may_write_a_number_differently() -> None:
    names = class_names(own(), [labelled("0", "1"), labelled(0.0, 1.0)])
    assert names == ("0", "1")
    assert class_indices(labelled("1.0", " 0"), names).tolist() == [1, 0]


def test_given_classes_may_be_meant_by_index() -> None:
    names = class_names(own(("bad", "good")), [labelled(0, 1)])
    assert class_indices(labelled(1, 0), names).tolist() == [1, 0]
    assert class_indices(labelled("good", "bad"), names).tolist() == [1, 0]


def test_class_numbers_are_no_indices() -> None:
    names = class_names(own(("1", "2")), [labelled(1, 2)])
    assert class_indices(labelled(2, 1), names).tolist() == [1, 0]
    with pytest.raises(InputError, match=r"rows\.tsv: row 1: label '0' is none of .* '1', '2'"):
        class_indices(labelled(0), names)


def test_unknown_label_at_evaluation() -> None:
    names = class_names(own(), [labelled("a", "b")])
    with pytest.raises(InputError, match=r"rows\.tsv: row 3: label 'c' is none of the classes"):
        class_indices(labelled("a", "b", "c", "d"), names)


def test_unlabelled_rows_are_not_classes() -> None:
    with pytest.raises(InputError, match="row 2: label '-1'"):
        class_indices(labelled(0, -1), ("negative", "positive"))


def test_labels_that_cannot_be_classes() -> None:
    with pytest.raises(InputError, match="needs two different ones"):
        class_names(own(), [labelled("same", "same")])
    with pytest.raises(InputError, match="has 300 different values in 300 rows, too many"):
        class_names(own(), [labelled(*(f"id{i}" for i in range(300)))])
    with pytest.raises(InputError, match="empty labels"):
        class_names(own(), [labelled("", "a")])


def test_numbers() -> None:
    assert numbers(labelled("1.5", "-2e-1", "3")).tolist() == pytest.approx([1.5, -0.2, 3])
    assert numbers(labelled(0.25, 1.0)).dtype == np.float32
    for bad in ("high", "nan", "inf", ""):
        with pytest.raises(InputError, match=r"rows\.tsv: row 2: label .* is not a finite number"):
            numbers(labelled("1", bad))


# Preparing


@pytest.fixture
def task(tmp_path: Path) -> TaskSpec:
    """Three training examples, one of them too long for eight tokens, and two for evaluation."""
    train = "text\tlabel\na good\tpos\nbad bad\tneg\n" + "c " * 20 + "\tpos\n"
    return custom(
        write(tmp_path / "train.tsv", train),
        write(tmp_path / "val.tsv", "text\tlabel\nbads d\tneg\na\tpos\n"),
    )


def test_prepare_and_load(tmp_path: Path, model: ModelSpec, task: TaskSpec) -> None:
    folder = prepare(model, task, 8, tmp_path / "0123abcd")
    record = load_record(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "record.json",
        "train.safetensors",
        "validation.safetensors",
    ]
    assert evaluation_names(record) == ["validation"]
    assert record["id"] == "0123abcd"
    assert record["classes"] == ["neg", "pos"]
    assert record["outputs"] == 2
    assert record["tokenizer"]["pad_id"] == 0
    facts = record["splits"]["train"]
    assert (facts["rows"], facts["tokens"], facts["longest"], facts["truncated"]) == (3, 16, 8, 1)
    assert facts["class_counts"] == [1, 2]
    assert facts["majority_share"] == pytest.approx(2 / 3)
    split = load_split(folder, "train")
    assert split.lengths.tolist() == [4, 4, 8]
    assert split.input_ids[:4].tolist() == [2, 5, 9, 3]
    assert split.labels.tolist() == [1, 0, 1]
    assert (split.input_ids.dtype, split.labels.dtype) == (torch.int32, torch.int64)
    assert split.token_type_ids is not None
    assert (len(split), split.outputs, split.regression, split.pad_id) == (3, 2, False, 0)
    assert load_split(folder, "validation").input_ids.tolist() == [2, 10, 15, 8, 3, 2, 5, 3]


def test_prepare_again_does_nothing(
    tmp_path: Path, model: ModelSpec, task: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(model, task, 8, tmp_path / "data")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    loaded = []

    def watched(model: ModelSpec) -> object:
        loaded.append(model)
        return tokenising.load_tokenizer(model)

    monkeypatch.setattr("bigtickets.training.data.load_tokenizer", watched)
    prepare(model, task, 8, folder)
    assert not loaded
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    content = (folder / "train.safetensors").read_bytes()
    (folder / "train.safetensors").write_bytes(content[:-1])
    with pytest.raises(DamagedError, match=r"train\.safetensors: not as it was written"):
        load_split(folder, "train")
    prepare(model, task, 8, folder)
    assert loaded
    assert (folder / "train.safetensors").read_bytes() == content, "the same bytes"
    (folder / "validation.safetensors").unlink()
    with pytest.raises(DamagedError, match="missing"):
        load_split(folder, "validation")
    prepare(model, task, 16, folder)
    assert load_record(folder)["max_length"] == 16


def test_stopping_leaves_nothing_half(tmp_path: Path, model: ModelSpec, task: TaskSpec) -> None:
    def stop() -> None:
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        prepare(model, task, 8, tmp_path / "data", tick=stop)
    assert not (tmp_path / "data" / "record.json").exists()
    calls: list[int] = []
    prepare(model, task, 8, tmp_path / "data", tick=lambda: calls.append(1))
    assert len(calls) == 4, "two files, two blocks"


def test_blocks_do_not_show(
    tmp_path: Path, model: ModelSpec, task: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(model, task, 8, tmp_path / "whole")
    monkeypatch.setattr(tokenising, "BLOCK", 2)
    parts = prepare(model, task, 8, tmp_path / "parts")
    name = "train.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_pairs_lose_the_longer_text_first(tmp_path: Path, model: ModelSpec) -> None:
    path = write(tmp_path / "a.csv", "x,y,label\na,b b b b b b,0\nc c c c c c,d,1\na,b,1\n")
    pair = custom(path, path, text=("x", "y"))
    split = load_split(prepare(model, pair, 7, tmp_path / "data"), "train")
    a, b, c, d = 5, 6, 7, 8
    rows = [part.tolist() for part in split.input_ids.split(split.lengths.tolist())]
    assert rows == [[2, a, 3, b, b, b, 3], [2, c, c, c, 3, d, 3], [2, a, 3, b, 3]]
    assert split.token_type_ids is not None
    assert split.token_type_ids[:7].tolist() == [0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(InputError, match=r"training\.max_length: 4 leaves no room .* 5 at least"):
        prepare(model, pair, 4, tmp_path / "short")


def test_regression(tmp_path: Path, model: ModelSpec) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel\na\t0.5\nb\t2.5\n")
    task = custom(path, path, metric="pearson", regression=True)
    folder = prepare(model, task, 8, tmp_path / "data")
    record, split = load_record(folder), load_split(folder, "train")
    assert (record["classes"], record["outputs"], record["regression"]) == (None, 1, True)
    assert record["splits"]["train"]["label_mean"] == 1.5
    assert record["splits"]["train"]["majority_share"] is None
    assert split.regression
    assert split.labels.dtype == torch.float32


def test_several_files_in_one_split(tmp_path: Path, model: ModelSpec) -> None:
    one = write(tmp_path / "a.tsv", "text\tlabel\na\t0\n")
    two = write(tmp_path / "b.jsonl", '{"label": 1, "text": "b"}\n')
    task, turned = (custom(files, one) for files in ((one, two), (two, one)))
    first = prepare(model, task, 8, tmp_path / "first")
    second = prepare(model, turned, 8, tmp_path / "second")
    assert task.identity == turned.identity
    name = "train.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    assert sorted(load_split(first, "train").labels.tolist()) == [0, 1]


def test_missing_tokenizer(tmp_path: Path, model: ModelSpec, task: TaskSpec) -> None:
    (Path(model.path) / "vocab.txt").unlink()
    with pytest.raises(InputError, match=r"no tokenizer in .*model .*\n.*tokenizer\.json"):
        prepare(model, task, 8, tmp_path / "data")
    (Path(model.path) / "tokenizer.json").write_text("{broken")
    with pytest.raises(InputError, match="no tokenizer in"):
        prepare(model, task, 8, tmp_path / "data")
    hub = dataclasses.replace(model, path="some-org/some-model")
    with pytest.raises(InputError, match="no tokenizer in some-org/some-model"):
        prepare(hub, task, 8, tmp_path / "data")


def test_code_of_a_model_runs_only_if_the_study_says_so(
    model: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    asked = []
    original = transformers.AutoTokenizer.from_pretrained

    def watched(*args: object, **options: object) -> object:
        asked.append(options["trust_remote_code"])
        return original(*args, **options)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", watched)
    tokenising.load_tokenizer(model)
    tokenising.load_tokenizer(dataclasses.replace(model, trust_remote_code=True))
    assert asked == [False, True]


# GLUE as a whole


def little_glue(monkeypatch: pytest.MonkeyPatch, name: str, rows: int) -> TaskSpec:
    """A GLUE task whose published splits have `rows` rows each."""
    task = GLUE[name]
    small = dataclasses.replace(task, rows=dict.fromkeys(task.rows, rows))
    monkeypatch.setitem(GLUE, name, small)
    return glue_task(name)


def test_mnli_has_two_evaluation_splits(
    tmp_path: Path, model: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = little_glue(monkeypatch, "mnli", 1)
    for split, word in (("train", "a"), ("dev_matched", "b"), ("dev_mismatched", "c")):
        text = f"sentence1\tsentence2\tgold_label\n{word}\td\tcontradiction\n"
        write(tmp_path / "glue" / "MNLI" / f"{split}.tsv", text)
    folder = prepare(model, task, 8, tmp_path / "data", str(tmp_path / "glue"))
    assert evaluation_names(load_record(folder)) == ["validation", "validation_1"]
    first, second = load_split(folder, "validation"), load_split(folder, "validation_1")
    assert (first.name, second.name) == ("validation_matched", "validation_mismatched")
    assert [first.input_ids[1].item(), second.input_ids[1].item()] == [6, 7]
    assert first.labels.tolist() == [2]


def test_a_part_of_glue_is_not_glue(
    tmp_path: Path, model: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "dev"):
        write(tmp_path / "RTE" / f"{split}.tsv", "sentence1\tsentence2\tlabel\na\tb\tentailment\n")
    monkeypatch.setenv("BIGTICKETS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"train\.tsv: 1 rows, but split train .* has 2490"):
        prepare(model, glue_task("rte"), 8, tmp_path / "data")


def test_no_data_dir_and_no_hub() -> None:
    with pytest.raises(InputError) as caught:
        fetch_glue(glue_task("rte"))
    text = str(caught.value)
    assert len(text.splitlines()) == 2
    for word in ("rte", "execution.data_dir", "BIGTICKETS_DATA_DIR", "nyu-mll/glue", "prefetch"):
        assert word in text


def test_from_the_hub_cache(
    tmp_path: Path, model: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = little_glue(monkeypatch, "sst2", 2)
    repository = tmp_path / "hub" / "datasets--nyu-mll--glue"
    write(repository / "refs" / "main", "f" * 40)
    place = repository / "snapshots" / ("f" * 40) / "sst2"
    place.mkdir(parents=True)
    for split in ("train", "validation"):
        table = pa.table({"sentence": ["good", "bad"], "label": [1, 0], "idx": [0, 1]})
        pq.write_table(table, place / f"{split}-00000-of-00001.parquet")
    folder = prepare(model, task, 8, tmp_path / "data")
    assert load_record(folder)["classes"] == ["negative", "positive"]
    assert load_split(folder, "validation").labels.tolist() == [1, 0]


REAL: dict[str, list[int] | None] = {
    "cola": [2528, 6023],
    "sst2": [29780, 37569],
    "mrpc": [1194, 2474],
    "rte": [1249, 1241],
    "stsb": None,
}


@pytest.mark.parametrize("name", REAL)
def test_real_glue(name: str) -> None:
    if not (GLUE_FOLDER / name).is_dir():
        pytest.skip(f"no GLUE files in {GLUE_FOLDER}; set BIGTICKETS_DATA_DIR to have this tested")
    task = glue_task(name)
    files = glue_files(task, GLUE_FOLDER)
    rows = {split: read_rows(sources[0]) for split, sources in files.items()}
    assert {split: len(part.labels) for split, part in rows.items()} == GLUE[name].rows
    if REAL[name] is None:
        values = numbers(rows["train"])
        assert (values.min(), values.max()) == (0, 5)
        return
    assert rows["train"].class_names == task.labels, "the Hub's order"
    assert np.bincount(class_indices(rows["train"], task.labels or ())).tolist() == REAL[name]


def test_real_glue_prepared(tmp_path: Path, model: ModelSpec) -> None:
    if not (GLUE_FOLDER / "rte").is_dir():
        pytest.skip(f"no GLUE files in {GLUE_FOLDER}; set BIGTICKETS_DATA_DIR to have this tested")
    folder = prepare(model, glue_task("rte"), 32, tmp_path / "data", str(GLUE_FOLDER))
    split = load_split(folder, "validation")
    assert len(split) == 277
    assert split.lengths.max() == 32
    assert torch.bincount(split.labels).tolist() == [146, 131]


def test_custom_files_are_in_the_order_of_their_contents(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, f"text\tlabel\n{name}\t0\n") for name in ("a.tsv", "b.tsv")]
    task = custom(paths[0], paths[0])
    names = tuple(str(path) for path in paths)
    copies = tuple(str(tmp_path / name) for name in ("z.tsv", "y.tsv"))
    for path, copy in zip(paths, copies, strict=True):
        shutil.copy(path, copy)
    here = [file.path.read_text() for file in custom_files(task, names)]
    assert here == [file.path.read_text() for file in custom_files(task, copies)]


# Subsets

LabelMaker = Callable[[int, int], np.ndarray]


def classes(count: int, seed: int) -> np.ndarray:
    """Labels of one to four classes of very different sizes, sorted as files may be."""
    random = np.random.default_rng(seed)
    share = random.dirichlet(np.full(random.integers(1, 5), 0.5))
    return np.sort(random.choice(len(share), count, p=share))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(0, 999), st.lists(st.floats(0.001, 1), max_size=6))
def test_subsets_are_nested_and_stratified(count: int, seed: int, shares: list[float]) -> None:
    labels = classes(count, seed)
    _, sizes = np.unique(labels, return_counts=True)
    before: set[int] = set()
    for share in [*sorted(shares), 1.0]:
        chosen = subset(labels, fraction=share)
        assert chosen.dtype == np.int64
        assert (np.diff(chosen) > 0).all()
        assert before <= set(chosen.tolist())
        before = set(chosen.tolist())
        kinds, kept = np.unique(labels[chosen], return_counts=True)
        assert len(kinds) == len(sizes), "every class has an example"
        if share == 1 or len(chosen) > len(sizes):
            quota = len(chosen) * sizes / count
            # A class that has its one example against its quota takes it from the others.
            assert (np.abs(kept - quota) < 1 + len(sizes)).all()
    assert len(before) == count


def test_two_classes_are_apportioned_exactly() -> None:
    labels = np.repeat([0, 1], [700, 300])
    for wanted in range(10, 1000, 37):
        kept = np.bincount(labels[subset(labels, count=wanted)])
        assert abs(kept[1] - 0.3 * wanted) <= 0.5


def test_subsets_do_not_follow_the_file() -> None:
    chosen = subset(np.zeros(1000, np.int64), fraction=0.1)
    assert len(chosen) == 100
    assert 300 < chosen.mean() < 700
    np.testing.assert_array_equal(chosen, subset(torch.zeros(1000).long(), fraction=0.1))


def test_golden_subset() -> None:
    """Records name the fraction alone: its examples must not change."""
    labels = np.arange(20) % 3 == 0
    assert subset(labels, fraction=0.25).tolist() == [2, 3, 11, 13, 15]


def test_subset_of_numbers_spans_their_range() -> None:
    labels = torch.tensor(np.random.default_rng(0).exponential(size=1000), dtype=torch.float32)
    chosen = subset(labels, fraction=0.05)
    assert len(chosen) == 50
    tenth = np.argsort(np.argsort(labels.numpy())) // 100
    assert np.bincount(tenth[chosen]).tolist() == [5] * 10


def test_rounding_of_a_fraction_is_decimal() -> None:
    labels = np.zeros(50, np.int64)
    assert len(subset(labels, fraction=0.29)) == 15  # 14.5, though 0.29 * 50 is 14.499999999999998


def test_subsets_that_cannot_be() -> None:
    labels = np.array([0, 1, 2])
    with pytest.raises(InputError, match="2 examples are too few for 3 classes"):
        subset(labels, count=2)
    with pytest.raises(InputError, match="above 0 and at most 1"):
        subset(labels, fraction=1.5)
    with pytest.raises(TypeError):
        subset(labels)
    assert subset(labels, fraction=0.01).tolist() == [0, 1, 2]
    assert len(subset(np.arange(200.0), count=3)) == 3
    assert subset(labels, count=99).tolist() == [0, 1, 2]
