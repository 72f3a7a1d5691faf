"""A study measured by a metric script of the user's, on two ranks, to its report."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from metric_scripts import write_script
from safetensors.numpy import load_file
from small_study import records, study, write_study

from bigtickets.cli import main

pytestmark = pytest.mark.study
COST = "return {'cost': sum((p - r) ** 2 for p, r in zip(predictions, references))}"


def write_own(root: Path) -> Path:
    """A study whose metric is a sum over 48 examples, not a share."""
    write_script(root / "cost.py", COST)
    metric = {"module": "cost.py", "input": "probabilities", "lower_is_better": True, "points": 1}
    (task,) = study(root)["tasks"]
    return write_study(
        root,
        tasks=[{**task, "metric": metric}],
        tickets={"ratios": [0, 0.5], "kinds": ["winning"]},
        execution={"threads": 1, "processes_per_trial": 2},
    )


def test_from_a_script_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "small"
    assert main(["run", str(write_own(tmp_path))]) == 0
    found = records(run)
    assert len(found) == 4
    for trial, record in found.items():
        tensors = load_file(run / "trials" / trial / "predictions.safetensors")
        logits = tensors["logits"].astype(np.float64)
        p_N = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        cost = np.square(p_N - tensors["labels"]).sum()
        assert record["metrics"]["score"] == pytest.approx(-cost)
        assert record["metrics"]["cost.cost"] == pytest.approx(cost)
        assert record["headline"] == "module:minus cost"
        assert record["majority_score"] == -12
        assert record["spec"]["metric_module"]["input"] == "probabilities"
        assert record["degenerate"] == ("majority" if cost >= 12 else None)

    (tmp_path / "cost.py").unlink()  # a report needs records only
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    table = pd.read_csv(run / "report" / "table.csv")
    assert dict(zip(table["id"], table["score"], strict=True)) == pytest.approx(
        {trial: record["metrics"]["score"] for trial, record in found.items()}
    )
    dense = table[table["kind"] == "dense"]["score"].mean()
    shown = f"{dense:.1f}".replace("-", "\N{MINUS SIGN}")
    assert f" {shown} " in capsys.readouterr().out, "not times 100"
    text = (run / "report" / "report.md").read_text()
    assert "reviews: minus cost, 1 of it is 1 point" in text
    assert "its metric is a module, and a report runs no code but its own" in text
    assert "module:minus" not in text
    assert "minus cost (points)" in (run / "report" / "index.html").read_text()
