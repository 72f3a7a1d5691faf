"""The GLUE and metric tables, custom tasks' identities, and the layouts of GLUE files."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bigtickets.errors import InputError
from bigtickets.study.sources import data_folder, glue_files, identify, split_files
from bigtickets.study.spec import TaskSpec
from bigtickets.study.tasks import GLUE, METRICS, glue_task, is_regression


def reviews(folder: Path, name: str = "reviews") -> TaskSpec:
    """A custom task over two training files and an evaluation file."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, row in (("a", "good\tpos"), ("b", "bad\tneg"), ("val", "fine\tpos")):
        (folder / f"{part}.tsv").write_text(f"words\tmood\n{row}\n")
    return TaskSpec(
        name=name,
        identity="",
        text=("words",),
        label="mood",
        metric="accuracy",
        labels=None,
        train=(str(folder / "a.tsv"), str(folder / "b.tsv")),
        validation=(("validation", (str(folder / "val.tsv"),)),),
    )


def test_glue_names_and_metrics() -> None:
    assert list(GLUE) == ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
    for name, task in GLUE.items():
        spec = glue_task(name)
        assert spec.identity == f"glue/{name}"
        assert spec.glue
        assert set(task.rows) == {"train", *task.evaluation}
        assert tuple(split for split, _ in spec.validation) == task.evaluation
        assert spec.regression == (spec.labels is None) == is_regression(spec.metric)
    assert glue_task("cola").metric == "matthews"
    assert glue_task("stsb").metric == "pearson_spearman"
    assert glue_task("mnli").validation == (
        ("validation_matched", ()),
        ("validation_mismatched", ()),
    )


def test_published_sizes() -> None:
    assert GLUE["mnli"].rows == {
        "train": 392702,
        "validation_matched": 9815,
        "validation_mismatched": 9832,
    }
    assert GLUE["wnli"].labels == ("not_entailment", "entailment")
    assert GLUE["rte"].labels == ("entailment", "not_entailment")


def test_unknown_glue_task() -> None:
    with pytest.raises(InputError, match=r"'sst' is no GLUE task; there are cola, sst2"):
        glue_task("sst")


def test_metric_parts_are_of_one_sort() -> None:
    for metric in METRICS.values():
        assert all(METRICS[key].regression == metric.regression for key in metric.keys)


def test_study_room_needs_no_torch() -> None:
    code = (
        "import sys, bigtickets.study.sources, bigtickets.study.tasks;"
        "sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_identity_ignores_place_and_order(tmp_path: Path) -> None:
    task = identify(reviews(tmp_path / "here"))
    moved = reviews(tmp_path / "there", name="other")
    moved = dataclasses.replace(moved, train=moved.train[::-1])
    assert identify(moved).identity == task.identity
    assert task.identity.startswith("files:")


@pytest.mark.parametrize("change", ["content", "label", "metric", "labels", "split"])
def test_identity_sees_what_matters(tmp_path: Path, change: str) -> None:
    task = reviews(tmp_path)
    before = identify(task).identity
    if change == "content":
        Path(task.train[0]).write_text("words\tmood\ngood\tneg\n")
    elif change == "label":
        task = dataclasses.replace(task, label="words", text=("mood",))
    elif change == "metric":
        task = dataclasses.replace(task, metric="f1")
    elif change == "labels":
        task = dataclasses.replace(task, labels=("pos", "neg"))
    else:
        task = dataclasses.replace(task, train=task.train[:1])
    assert identify(task).identity != before


def test_identity_order_is_reading_order(tmp_path: Path) -> None:
    task = reviews(tmp_path)
    turned = dataclasses.replace(task, train=task.train[::-1])
    files, same = split_files(task, None), split_files(turned, None)
    assert files == same


def test_missing_file_and_column(tmp_path: Path) -> None:
    task = reviews(tmp_path)
    gone = dataclasses.replace(task, train=(str(tmp_path / "gone.tsv"),))
    with pytest.raises(InputError, match=r"tasks\[0\]\.train: .*gone\.tsv: no such file"):
        identify(gone, "tasks[0]")
    with pytest.raises(
        InputError, match=r"tasks\.train: .*a\.tsv: no column 'moods'; it has words, mood; did you"
    ):
        identify(dataclasses.replace(task, label="moods"))
    strange = tmp_path / "a.xlsx"
    strange.write_text("x")
    with pytest.raises(InputError, match=r"files of kind '\.xlsx' are not read; give csv, tsv"):
        identify(dataclasses.replace(task, train=(str(strange),)))
    Path(task.train[0]).write_text("")
    with pytest.raises(InputError, match="empty; expected a header"):
        identify(task)


def test_column_that_stands_twice(tmp_path: Path) -> None:
    task = reviews(tmp_path)
    Path(task.train[0]).write_text("words\tmood\tmood\ngood\tpos\tneg\n")
    with pytest.raises(InputError, match="two columns are called 'mood'"):
        identify(task)


def test_data_folder_of_study_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIGTICKETS_DATA_DIR", raising=False)
    assert data_folder(None) is None
    assert split_files(glue_task("rte"), None) is None
    monkeypatch.setenv("BIGTICKETS_DATA_DIR", "/environment")
    assert data_folder(None) == Path("/environment")
    assert data_folder("/study") == Path("/study")


def write(path: Path, text: str) -> None:
    """A file, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_hub_layout(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        write(tmp_path / "rte" / f"{name}.parquet", "")
    files = glue_files(glue_task("rte"), tmp_path)
    assert [f.path.name for f in files["train"]] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert files["validation"][0].text == ("sentence1", "sentence2")
    (tmp_path / "rte" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(InputError, match="1 of 2 files of split train are there"):
        glue_files(glue_task("rte"), tmp_path)


def test_original_cola_has_no_header(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write(tmp_path / "CoLA" / f"{split}.tsv", "gj04\t1\t\tOur friends won't buy it.\n")
    file = glue_files(glue_task("cola"), tmp_path)["validation"][0]
    assert file.path.name == "dev.tsv"
    assert file.header == ("source", "label", "star", "sentence")


ORIGINAL_HEADERS = {
    "sst2": ("SST-2", "sentence\tlabel", ("sentence",), "label"),
    "mrpc": (
        "MRPC",
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ("#1 String", "#2 String"),
        "Quality",
    ),
    "qqp": (
        "QQP",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        ("question1", "question2"),
        "is_duplicate",
    ),
    "stsb": (
        "STS-B",
        "index\tgenre\tsentence1\tsentence2\tscore",
        ("sentence1", "sentence2"),
        "score",
    ),
    "qnli": ("QNLI", "index\tquestion\tsentence\tlabel", ("question", "sentence"), "label"),
    "rte": ("RTE", "index\tsentence1\tsentence2\tlabel", ("sentence1", "sentence2"), "label"),
    "wnli": ("WNLI", "index\tsentence1\tsentence2\tlabel", ("sentence1", "sentence2"), "label"),
}


@pytest.mark.parametrize("name", ORIGINAL_HEADERS)
def test_original_columns(tmp_path: Path, name: str) -> None:
    place, header, text, label = ORIGINAL_HEADERS[name]
    for split in ("train", "dev"):
        write(tmp_path / place / f"{split}.tsv", header + "\n")
    files = glue_files(glue_task(name), tmp_path)
    assert list(files) == ["train", "validation"]
    assert (files["train"][0].text, files["train"][0].label) == (text, label)
    assert files["train"][0].skip_incomplete


def test_original_mnli(tmp_path: Path) -> None:
    header = "index\tpairID\tsentence1\tsentence2\tlabel1\tgold_label\n"
    for split in ("train", "dev_matched", "dev_mismatched"):
        write(tmp_path / "MNLI" / f"{split}.tsv", header)
    files = glue_files(glue_task("mnli"), tmp_path)
    assert files["validation_mismatched"][0].path.name == "dev_mismatched.tsv"
    assert files["validation_matched"][0].label == "gold_label"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_plain_layout(tmp_path: Path, suffix: str) -> None:
    row = {"premise": "a", "hypothesis": "b", "label": 0}
    text = json.dumps(row) if suffix == "jsonl" else ("," if suffix == "csv" else "\t").join(row)
    for split in ("train", "validation_matched", "dev_mismatched"):
        write(tmp_path / "mnli" / f"{split}.{suffix}", text + "\n")
    files = glue_files(glue_task("mnli"), tmp_path)
    assert files["train"][0].label == "label"
    assert files["train"][0].format == suffix


def test_second_folder_is_tried(tmp_path: Path) -> None:
    (tmp_path / "rte").mkdir()
    for split in ("train", "dev"):
        write(tmp_path / "RTE" / f"{split}.tsv", "index\tsentence1\tsentence2\tlabel\n")
    assert glue_files(glue_task("rte"), tmp_path)["train"][0].path.parent.name == "RTE"


def test_missing_glue_files_name_the_remedy(tmp_path: Path) -> None:
    task = glue_task("sst2")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError) as caught:
            glue_files(task, folder)
        lines = str(caught.value).splitlines()
        assert len(lines) == 2
        assert str(folder) in lines[0]
        assert "execution.data_dir (or BIGTICKETS_DATA_DIR)" in lines[1]
    write(tmp_path / "SST-2" / "train.tsv", "sentence\tlabel\n")
    with pytest.raises(InputError, match=r"SST-2: no validation split of GLUE task sst2"):
        glue_files(task, tmp_path)


def test_glue_file_with_other_columns(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write(tmp_path / "sst2" / f"{split}.tsv", "text\tlabels\n")
    with pytest.raises(InputError, match=r"no column 'sentence'; it has text, labels"):
        glue_files(glue_task("sst2"), tmp_path)


def test_files_may_be_links(tmp_path: Path) -> None:
    task = reviews(tmp_path / "store")
    shutil.copytree(tmp_path / "store", tmp_path / "links")
    link = tmp_path / "links" / "a.tsv"
    link.unlink()
    os.symlink(tmp_path / "store" / "a.tsv", link)
    linked = dataclasses.replace(task, train=(str(link), task.train[1]))
    assert identify(linked).identity == identify(task).identity
