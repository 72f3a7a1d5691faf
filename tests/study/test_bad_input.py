"""Ways to get a study file wrong: one or two lines that name the place and the remedy, exit code
2 or 3, and nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from metric_scripts import write_f1
from small_study import study, write_data, write_model

from bigtickets.cli import main

pytestmark = pytest.mark.study
Study = dict[str, Any]


def put(*keys: Any) -> Callable[[Path, Study], None]:
    """A change that sets the value of a nested key."""

    def change(root: Path, spec: Study) -> None:
        *path, last, value = keys
        for key in path:
            spec = spec.setdefault(key, {}) if isinstance(spec, dict) else spec[key]
        spec[last] = value

    return change


def edit(name: str, old: str, new: str, count: int = -1) -> Callable[[Path, Study], None]:
    """A change of a data file's text."""

    def change(root: Path, spec: Study) -> None:
        path = root / "data" / name
        path.write_text(path.read_text().replace(old, new, count))

    return change


def only_header(root: Path, spec: Study) -> None:
    path = root / "data" / "validation.tsv"
    path.write_text(path.read_text().splitlines()[0] + "\n")


def no_tokenizer(root: Path, spec: Study) -> None:
    for path in (root / "model").glob("*"):
        if "token" in path.name or path.name == "vocab.txt":
            path.unlink()


def cut_weights(root: Path, spec: Study) -> None:
    path = root / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def garbage_weights(root: Path, spec: Study) -> None:
    (root / "model" / "model.safetensors").write_bytes(b"\xff" * 1000)


def pickled_weights(root: Path, spec: Study) -> None:
    (root / "model" / "model.safetensors").rename(root / "model" / "pytorch_model.bin")


def missing_shard(root: Path, spec: Study) -> None:
    """Weights in two files of which one was not copied."""
    model = root / "model"
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def uneven_heads(root: Path, spec: Study) -> None:
    path = root / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_attention_heads": 5}))


def other_family(root: Path, spec: Study) -> None:
    path = root / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "t5"}))


def engine_file(text: str) -> Callable[[Path, Study], None]:
    """A change that gives the study an engine file of its own."""

    def change(root: Path, spec: Study) -> None:
        (root / "engine.json").write_text(text)
        spec["execution"] = {"ds_config": str(root / "engine.json")}

    return change


def same_model_twice(root: Path, spec: Study) -> None:
    spec["models"].append({**spec["models"][0], "name": "other"})


def same_task_twice(root: Path, spec: Study) -> None:
    spec["tasks"].append({**spec["tasks"][0], "name": "other"})


def unknown_label(root: Path, spec: Study) -> None:
    path = root / "data" / "validation.tsv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].split("\t")[0] + "\tmaybe"
    path.write_text("\n".join(lines) + "\n")


def metric_module(**keys: Any) -> Callable[[Path, Study], None]:
    """A change that measures by a metric script, with these keys beside it."""

    def change(root: Path, spec: Study) -> None:
        write_f1(root / "my_f1.py")
        (root / "empty.py").write_text("import evaluate\n")
        spec["tasks"][0]["metric"] = {"module": "./my_f1.py", "result": "f1", **keys}

    return change


TASK = ("tasks", 0)
METRIC = "tasks[0].metric"
BAD: dict[str, tuple[Callable[[Path, Study], None], int, tuple[str, ...]]] = {
    "unknown key": (put("training", "learning_rat", 1e-3), 2, ("learning_rat", "learning_rate")),
    "unknown top key": (put("seed", [1]), 2, ("seed", "seeds")),
    "ratio above 1": (put("tickets", "ratios", [0, 1.2]), 2, ("tickets.ratios", "1.2")),
    "negative ratio": (put("tickets", "ratios", [-0.1]), 2, ("tickets.ratios", "-0.1")),
    "no ratios": (put("tickets", "ratios", []), 2, ("tickets.ratios", "empty")),
    "equal ratios": (put("tickets", "ratios", [0.5, 0.5]), 2, ("tickets.ratios", "twice")),
    "control beside no ratio": (
        put("tickets", "control_ratios", [0.5, 0.6]),
        2,
        ("tickets.control_ratios", "0.6", "tickets.ratios"),
    ),
    "control at 0": (put("tickets", "control_ratios", [0]), 2, ("tickets.control_ratios", "0")),
    "controls of nothing": (
        put("tickets", {"kinds": ["random"], "control_ratios": [0.5]}),
        2,
        ("tickets.control_ratios", "winning", "random"),
    ),
    "equal seeds": (put("seeds", [1, 1]), 2, ("seeds", "twice")),
    "no seeds": (put("seeds", []), 2, ("seeds", "empty")),
    "word for a number": (put("training", "epochs", "three"), 2, ("training.epochs", "number")),
    "batch of 0": (put("training", "batch_size", 0), 2, ("training.batch_size", "1 or more")),
    "unknown kind": (put("tickets", "kinds", ["wining"]), 2, ("tickets.kinds", "winning")),
    "unknown budget": (put("tickets", "budget", "per type"), 2, ("tickets.budget", "per_type")),
    "overlapping units": (put("tickets", "units", ["neurons", "blocks"]), 2, ("tickets.units",)),
    "no such stage": (put("execution", "zero", 5), 2, ("execution.zero", "0, 1, 2, 3 or auto")),
    "offload at stage 1": (
        put("execution", {"zero": 1, "offload": True}),
        2,
        ("execution.offload", "ZeRO 1", "2 or 3"),
    ),
    "engine file that offloads weights at stage 0": (
        engine_file('{"zero_optimization": {"stage": 0, "offload_param": {"device": "cpu"}}}'),
        2,
        ("engine.json", "offload_param", "ZeRO 3"),
    ),
    "fraction of 0": (put("data_fractions", [0]), 2, ("data_fractions",)),
    "no such model": (put("models", 0, "path", "/no/such/dir"), 2, ("models[0].path", "/no/such")),
    "no models": (put("models", []), 2, ("models", "at least one")),
    "not a glue task": (put("tasks", ["sst3"]), 2, ("tasks[0]", "sst2")),
    "missing file": (put(*TASK, "train", "nowhere.tsv"), 2, ("tasks[0].train", "nowhere.tsv")),
    "unknown metric": (put(*TASK, "metric", "acuracy"), 2, ("tasks[0].metric", "accuracy")),
    "no such script": (metric_module(module="./my_f2.py"), 2, (METRIC, "./my_f2.py", "no such")),
    "hub module": (metric_module(module="f1"), 2, (METRIC, "f1", "trust_remote_code: true")),
    "no metric inside": (metric_module(module="empty.py"), 2, (METRIC, "empty.py", "_compute")),
    "key of a module": (metric_module(resutl="f1"), 2, (f"{METRIC}.resutl", "'result'")),
    "input of a module": (metric_module(input="class"), 2, (f"{METRIC}.input", "'classes'")),
    "points of a module": (metric_module(points=0), 2, (f"{METRIC}.points", "more than 0")),
    "predictions": (metric_module(arguments={"predictions": 1}), 2, (f"{METRIC}.arguments.pred",)),
    "result of a module": (metric_module(result="F1"), 2, ("reviews", "my_f1.py", "'F1'", "f1")),
    "argument of a module": (metric_module(arguments={"averag": 1}), 2, ("my_f1.py", "averag")),
    "no text column": (put(*TASK, "text", "sentense"), 2, ("sentense", "sentence")),
    "no label column": (put(*TASK, "label", "labels_"), 2, ("labels_", "label")),
    "label as text": (put(*TASK, "label", "sentence"), 2, ("tasks[0].label",)),
    "unknown label": (unknown_label, 2, ("maybe", "validation.tsv")),
    "empty split": (only_header, 2, ("validation.tsv",)),
    "no tokenizer": (no_tokenizer, 2, ("tokenizer", "model")),
    "cut weights": (cut_weights, 3, ("model.safetensors", "damaged")),
    "garbage weights": (garbage_weights, 3, ("model.safetensors", "damaged")),
    "pickled weights": (pickled_weights, 2, ("model.safetensors", "missing")),
    "missing shard": (missing_shard, 2, ("model-00002-of-00002.safetensors", "missing")),
    "heads not divisible": (uneven_heads, 2, ("hidden_size 32", "num_attention_heads 5")),
    "another family": (other_family, 2, ("t5", "bert")),
    "too long": (put("training", "max_length", 1000), 2, ("max_length", "64")),
    "engine file with batch": (
        engine_file('{"train_batch_size": 32}'),
        2,
        ("engine.json", "train_batch_size", "training.batch_size"),
    ),
    "engine file that computes": (
        engine_file('{"progressive_layer_drop": {"enabled": true}}'),
        2,
        ("engine.json", "progressive_layer_drop"),
    ),
    "engine file of another stage": (
        engine_file('{"zero_optimization": {"stage": 2}}'),
        2,
        ("engine.json", "stage is 2", "execution.zero is 0"),
    ),
    "engine file with a comma too many": (
        engine_file('{"steps_per_print": 1,}'),
        2,
        ("engine.json", "JSON"),
    ),
    "same model twice": (same_model_twice, 2, ("models[1]", "other", "tiny")),
    "same task twice": (same_task_twice, 2, ("tasks[1]", "other", "reviews")),
    "metric as a list": (put(*TASK, "metric", ["accuracy"]), 2, ("tasks[0].metric",)),
    "task named by a mapping": (put(*TASK, "name", {"a": 1}), 2, ("tasks[0]",)),
    "name with a slash": (put("study", "a/b"), 2, ("study", "a/b")),
    "legacy without batch": (
        put("importance", "granularity", "legacy_batch"),
        2,
        ("importance.batch",),
    ),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model and good data, to be copied and spoilt."""
    root = tmp_path_factory.mktemp("parts")
    write_model(root / "model")
    write_data(root / "data")
    return root


def written(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*"))


@pytest.mark.parametrize("name", BAD)
def test_bad_study(
    name: str,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, code, words = BAD[name]
    shutil.copytree(parts, tmp_path, dirs_exist_ok=True)
    spec = study(tmp_path)
    spoil(tmp_path, spec)
    path = tmp_path / "my-study.yaml"
    path.write_text(yaml.safe_dump(spec))
    monkeypatch.chdir(tmp_path)
    before = written(tmp_path)
    assert main(["run", str(path)]) == code
    message = capsys.readouterr().err
    assert len(message.strip().splitlines()) in (1, 2), message
    assert "Traceback" not in message
    for word in words:
        assert word in message, message
    assert written(tmp_path) == before, "something was written"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("study: [", ("not valid YAML", "line")),
        ("study: a\nstudy: b\n", ("study", "twice")),
        ("just words", ("mapping",)),
        ("", ("mapping",)),
        ("study: !!python/object:os.system {}\n", ("not valid YAML",)),
    ],
)
def test_bad_yaml(
    text: str, words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    assert main(["plan", str(path)]) == 2
    message = capsys.readouterr().err
    assert len(message.strip().splitlines()) in (1, 2)
    for word in ("study.yaml", *words):
        assert word in message


def test_no_such_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "none.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_not_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "report", "retry"):
        assert main([command, str(tmp_path)]) == 2
        assert "not a run folder" in capsys.readouterr().err


def test_numbers_that_yaml_reads_as_text(parts: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    spec = yaml.safe_dump(study(parts)).replace("learning_rate: 0.003", "learning_rate: 3e-3")
    assert "3e-3" in spec
    path.write_text(spec)
    assert main(["plan", str(path)]) == 0
