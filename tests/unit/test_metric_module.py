"""Metric modules: what they are given, what becomes of their results, many jobs at once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from metric_scripts import write_f1, write_script
from small_study import HANG_S

from bigtickets.errors import InputError
from bigtickets.study.modules import read_module
from bigtickets.study.spec import MetricModule
from bigtickets.training.metrics import Evaluation, evaluate_splits

DRAW = np.random.default_rng(0)
LABELS = DRAW.integers(0, 2, 40)
LOGITS = DRAW.standard_normal((40, 2)) + 0.8 * np.eye(2)[LABELS]


def module(script: Path, **keys: Any) -> MetricModule:
    return read_module({"module": str(script), **keys}, "metric", script)


def evaluated(
    script: Path, logits: np.ndarray = LOGITS, labels: np.ndarray = LABELS, **keys: Any
) -> Evaluation:
    return evaluate_splits("module:any", [("validation", logits, labels)], module(script, **keys))


def test_classes_with_arguments(tmp_path: Path) -> None:
    keys = {"result": "f1", "arguments": {"average": "macro"}}
    result = evaluated(write_f1(tmp_path / "my_f1.py"), **keys)
    told = LOGITS.argmax(1)
    assert result.metrics["score"] == sklearn.metrics.f1_score(LABELS, told, average="macro")
    assert result.metrics["my_f1.f1"] == result.metrics["score"]
    assert result.metrics["my_f1.examples"] == 40
    assert result.metrics["f1"] == sklearn.metrics.f1_score(LABELS, told), "its own, of class 1"
    most = np.full(40, np.bincount(LABELS).argmax())
    least = sklearn.metrics.f1_score(LABELS, most, average="macro", zero_division=0)
    assert result.majority_score == least
    assert result.degenerate is None
    assert evaluated(tmp_path / "my_f1.py", LOGITS * [1, 0] - [0, 9], **keys).degenerate == (
        "constant"
    )
    assert evaluated(tmp_path / "my_f1.py", LOGITS[:, ::-1], **keys).degenerate == "majority"


def test_probabilities_of_two_and_of_three(tmp_path: Path) -> None:
    body = 'return {"auc": metrics.roc_auc_score(references, prediction_scores)}'
    auc = write_script(tmp_path / "auc.py", body, inputs="prediction_scores")
    result = evaluated(auc, input="probabilities")
    margin = LOGITS[:, 1] - LOGITS[:, 0]
    assert result.metrics["score"] == pytest.approx(sklearn.metrics.roc_auc_score(LABELS, margin))
    assert result.majority_score == 0.5
    # One class for all, and yet no constant: the ranking is what counts.
    shifted = evaluated(auc, LOGITS + np.array([0, 9]), input="probabilities")
    assert shifted.metrics["score"] == pytest.approx(result.metrics["score"])
    assert shifted.degenerate is None

    script = write_script(tmp_path / "log_loss.py", 'return {"loss": float("nan")}')
    rows = script.read_text().replace("value, ", "datasets.Sequence(value), ", 1)
    script.write_text(
        rows.replace('float("nan")', "metrics.log_loss(references, predictions, labels=[0, 1, 2])")
    )
    three, labels = DRAW.standard_normal((30, 3)), np.arange(30) % 3
    result = evaluated(script, three, labels, input="probabilities", lower_is_better=True)
    assert result.metrics["log_loss.loss"] == pytest.approx(result.metrics["loss"])
    assert result.metrics["score"] == -result.metrics["log_loss.loss"]
    assert result.majority_score == pytest.approx(-np.log(3)), "frequencies, not one class"
    assert result.degenerate == "majority"


def test_values_that_are_no_share(tmp_path: Path) -> None:
    body = 'return {"mae": metrics.mean_absolute_error(references, predictions)}'
    script = write_script(tmp_path / "mae.py", body)
    labels = np.array([10.0, 20.0, 30.0, 60.0], np.float32)
    keys: dict[str, Any] = {"input": "values", "lower_is_better": True}
    result = evaluated(script, labels[:, None] + 3, labels, **keys)
    assert (result.metrics["score"], result.majority_score) == (-3.0, -15.0)
    assert result.metrics["pearson"] == pytest.approx(1)
    assert result.degenerate is None
    assert evaluated(script, labels[:, None] + 30, labels, **keys).degenerate == "majority"


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    body = "return {'r': float('nan') if len(set(predictions)) == 1 else 0.5}"
    script = write_script(tmp_path / "r.py", body)
    good = evaluated(script)
    assert (good.metrics["score"], good.majority_score, good.degenerate) == (0.5, None, None)
    constant = evaluated(script, np.tile([0.0, 1.0], (40, 1)))
    assert (constant.metrics["score"], constant.degenerate) == (None, "constant")
    broken = LOGITS.copy()
    broken[3] = np.nan
    assert evaluated(script, broken).degenerate == "nan"
    assert evaluated(script, broken).metrics["score"] is None


BAD = {
    "wrong key": (
        'return {"accuracy": 1.0, "f1": 0.5}',
        {"result": "acuracy"},
        r"bad\.py: no result 'acuracy'; did you mean 'accuracy'",
    ),
    "which of two": ('return {"f1": 1.0, "b": 0.5}', {}, r"several results \(f1, b\); name .*`re"),
    "no number": ('return {"f1": [1.0, 0.5]}', {}, r"'f1' is no single number: \[1\.0, 0\.5\]"),
    "no mapping": ("return 1.0", {}, "must return a mapping"),
    "raises": ("return 1 / 0", {}, r"bad\.py: ZeroDivisionError: division by zero"),
    "argument": ("return {}", {"arguments": {"avrage": 1}}, "TypeError: .*avrage"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_module_may_get_wrong(name: str, tmp_path: Path) -> None:
    body, keys, words = BAD[name]
    with pytest.raises(InputError, match=words):
        evaluated(write_script(tmp_path / "bad.py", body), **keys)


def test_a_script_that_is_none(tmp_path: Path) -> None:
    script = tmp_path / "other.py"
    script.write_text("class Other:\n    def _compute(self): ...\n")
    with pytest.raises(InputError, match=r"no class of it extends evaluate\.Metric"):
        evaluated(script)
    script.write_text("import no_such_package\nclass A:\n    def _compute(self): ...\n")
    with pytest.raises(InputError, match=r"ModuleNotFoundError: .*no_such_package"):
        evaluated(script)


def test_changed_code_is_never_run_under_the_old_name(tmp_path: Path) -> None:
    script = write_script(tmp_path / "one.py", 'return {"a": 1.0}')
    known = module(script)
    assert evaluated(script).metrics["score"] == 1.0
    script.write_text(script.read_text().replace("1.0", "2.0"))
    assert evaluated(script).metrics["score"] == 2.0, "same size, same second: no byte code"
    assert not list(tmp_path.glob("__pycache__"))
    script.write_text(script.read_text().replace("2.0", "3.0"))
    fresh = MetricModule(known.name, known.path, "0" * 64)
    with pytest.raises(InputError, match="changed since the study was read"):
        evaluate_splits("module:any", [("validation", LOGITS, LABELS)], fresh)


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Both wait for each other inside `_compute`, and neither leaves anything anywhere."""
    body = (
        "import os, time\n"
        "        open(os.path.join(place, me), 'w').close()\n"
        "        while len(os.listdir(place)) < 2:\n"
        "            time.sleep(0.01)\n"
        "        return {'mean': sum(predictions) / len(predictions)}"
    )
    script = write_script(tmp_path / "slow.py", body, ", place, me")
    (tmp_path / "meet").mkdir()
    code = (
        "import json, sys, numpy as np; from pathlib import Path;"
        "from bigtickets.study.modules import read_module;"
        "from bigtickets.training import metric_module as m;"
        "k = json.loads(sys.argv[1]);"
        "v = np.full((9, 1), float(k['arguments']['me']));"
        "print(m.compute(read_module(k, '', Path(k['module'])), v, v[:, 0])['score'])"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "TMPDIR": str(tmp_path / "tmp")}
    environment["OMP_NUM_THREADS"] = "1"
    (tmp_path / "tmp").mkdir()
    started = []
    for number in ("3", "4"):
        arguments = {"place": str(tmp_path / "meet"), "me": number}
        keys = {"module": str(script), "input": "values", "arguments": arguments}
        command = [sys.executable, "-c", code, json.dumps(keys)]
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    results = [process.communicate(timeout=HANG_S)[0].strip() for process in started]
    assert results == ["3.0", "4.0"]
    assert not (tmp_path / "hf").exists(), "the shared cache"
    assert not list((tmp_path / "tmp").glob("bigtickets*"))
