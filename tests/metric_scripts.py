"""Metric scripts as users write them, for `evaluate`."""

from pathlib import Path

SCRIPT = """
import datasets
import evaluate
from sklearn import metrics


class {name}(evaluate.Metric):
    def _info(self):
        value = datasets.Value({dtype!r})
        features = datasets.Features({{{inputs!r}: value, "references": value}})
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="", features=features
        )

    def _compute(self, {inputs}, references{more}):
        {body}
"""


def write_script(
    path: Path,
    body: str,
    more: str = "",
    dtype: str = "float64",
    inputs: str = "predictions",
) -> Path:
    """A module whose `_compute(predictions, references, ...)` is `body`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.stem.title().replace("_", "")
    path.write_text(
        SCRIPT.format(name=name, body=body, more=more, dtype=dtype, inputs=inputs).lstrip()
    )
    return path


def write_f1(path: Path) -> Path:
    """F1 with scikit-learn's `average`, beside the number of examples."""
    return write_script(
        path,
        "f1 = metrics.f1_score(references, predictions, average=average, zero_division=0)\n"
        '        return {"f1": f1, "examples": len(references)}',
        ', average="binary"',
        "int32",
    )
