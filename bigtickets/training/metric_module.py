"""Headlines that a module of the `evaluate` library computes; the only file that imports it.

`evaluate.load` copies scripts into a folder that all jobs share, under a lock, and may ask the
Hub. Here the script is imported from where it lies, its predictions stay in memory, and what it
writes beside goes into a folder of its own that is gone afterwards: any number of jobs can compute
at once. The library takes seconds to import, so only what calls a module does.
"""

import hashlib
import importlib.util
import math
import sys
import tempfile
import uuid
import warnings
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import scipy.special

from bigtickets.errors import InputError
from bigtickets.study.columns import first_line
from bigtickets.study.parsing import did_you_mean
from bigtickets.study.spec import MetricModule


def compute(
    module: MetricModule, logits_NC: np.ndarray, labels_N: np.ndarray
) -> dict[str, float | None]:
    """`score`, higher is better, and every number that the module returns as `<module>.<key>`.

    None where a number is not finite. Nothing is called for logits that are not finite.
    """
    if not np.isfinite(logits_NC).all():
        return {"score": None}
    return _scores(module, given_to(module, logits_NC), labels_N)


def majority_score(module: MetricModule, labels_N: np.ndarray, outputs: int) -> float | None:
    """Score of the best constant prediction; None if the module gives none for constants.

    The most frequent class; the classes' frequencies; the mean of the numbers.
    """
    with warnings.catch_warnings():
        # Many metrics warn of constants; these are meant.
        warnings.simplefilter("ignore")
        return _scores(module, _constant(module, labels_N, outputs), labels_N)["score"]


def given_to(module: MetricModule, logits_NC: np.ndarray) -> np.ndarray:
    """What the module gets as predictions: (N,), or (N, C) probabilities of several classes."""
    logits_NC = np.asarray(logits_NC, np.float64).reshape(len(logits_NC), -1)
    if module.input == "values":
        return logits_NC[:, 0]
    if module.input == "classes":
        return np.asarray(logits_NC.argmax(-1))
    return _of_two(scipy.special.softmax(logits_NC, axis=-1))


def private_cache() -> tempfile.TemporaryDirectory:
    """A folder that no other process writes into, for what a module leaves behind."""
    return tempfile.TemporaryDirectory(prefix="bigtickets-metric-")


def load(module: MetricModule, cache: str) -> Any:
    """An instance of the script's metric class; InputError if it has none or cannot be imported."""
    import evaluate

    code = _imported(module)
    for found in vars(code).values():
        own = isinstance(found, type) and found.__module__ == code.__name__
        if own and issubclass(found, evaluate.EvaluationModule):
            break
    else:
        raise InputError(f"{module.path}: no class of it extends evaluate.Metric")
    if found._download_and_prepare is not evaluate.EvaluationModule._download_and_prepare:
        raise InputError(
            f"{module.path}: fetches files of its own (_download_and_prepare), which workers "
            "cannot: they have no network"
        )
    try:
        return found(keep_in_memory=True, cache_dir=cache, experiment_id=uuid.uuid4().hex, seed=0)
    except Exception as error:
        raise _trouble(module, error) from error


def _scores(
    module: MetricModule, predictions: np.ndarray, labels_N: np.ndarray
) -> dict[str, float | None]:
    results = _results(module, predictions, labels_N)
    key = _headline_key(module, results)
    numbers = {k: _number(v) for k, v in results.items()}
    value = numbers[key]
    if value is None:
        raise InputError(f"{module.path}: its result {key!r} is no single number: {results[key]!r}")
    score = -value if module.lower_is_better else value
    known = {f"{module.name}.{k}": _finite(v) for k, v in numbers.items() if v is not None}
    return {"score": _finite(score), **known}


def _results(module: MetricModule, predictions: np.ndarray, labels_N: np.ndarray) -> dict[str, Any]:
    """What the module's `compute` returns."""
    with private_cache() as cache:
        try:
            metric = load(module, cache)
            inputs = {_input_name(module, metric): predictions.tolist()}
            results = metric.compute(references=labels_N.tolist(), **inputs, **module.arguments)
        except InputError:
            raise
        except Exception as error:  # the user's code: whatever it raises is about it
            raise _trouble(module, error) from error
    if not isinstance(results, dict) or not results:
        raise InputError(f"{module.path}: _compute must return a mapping of results")
    return {str(key): value for key, value in results.items()}


def _input_name(module: MetricModule, metric: Any) -> str:
    """`predictions`, or what the module calls them (`prediction_scores`)."""
    features = metric.features[0] if isinstance(metric.features, list) else metric.features
    others = [str(name) for name in features if name != "references"]
    if len(others) != 1 or "references" not in features:
        raise InputError(
            f"{module.path}: its inputs are {', '.join(features)}; "
            "expected predictions and references"
        )
    return others[0]


def _headline_key(module: MetricModule, results: dict[str, Any]) -> str:
    if module.result is None:
        if len(results) > 1:
            raise InputError(
                f"{module.path}: it has several results ({', '.join(results)}); "
                "name the headline by `result`"
            )
        return next(iter(results))
    if module.result not in results:
        hint = did_you_mean(module.result, results)
        raise InputError(f"{module.path}: no result {module.result!r}; {hint}")
    return module.result


def _constant(module: MetricModule, labels_N: np.ndarray, outputs: int) -> np.ndarray:
    """The best prediction that is the same for every example."""
    if module.input == "values":
        return np.full(len(labels_N), float(np.mean(labels_N)))
    counts = np.bincount(np.asarray(labels_N, np.int64), minlength=outputs)
    if module.input == "classes":
        return np.full(len(labels_N), int(counts.argmax()))
    return _of_two(np.tile(counts / counts.sum(), (len(labels_N), 1)))


def _of_two(p_NC: np.ndarray) -> np.ndarray:
    """Of two classes the second one's probability says it all."""
    return p_NC[:, 1] if p_NC.shape[1] == 2 else p_NC


def _number(value: Any) -> float | None:
    """A single number as a float; None for anything else."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    return float(value) if isinstance(value, int | float | np.number) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _AsItIs(SourceFileLoader):
    """Compiles the script that the study read; no byte code is read or written beside it."""

    def __init__(self, name: str, module: MetricModule) -> None:
        super().__init__(name, module.path)
        self._digest = module.digest

    def get_code(self, fullname: str) -> CodeType:
        data = self.get_data(self.path)
        if hashlib.sha256(data).hexdigest() != self._digest:
            raise InputError(f"{self.path}: changed since the study was read; start again")
        return self.source_to_code(data, self.path)


def _imported(module: MetricModule) -> ModuleType:
    """The script as a Python module, imported once per process and content."""
    name = f"bigtickets_metric_{module.digest}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _AsItIs(name, module)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code  # dataclasses and others look their module up there
    try:
        loader.exec_module(code)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise error if isinstance(error, InputError) else _trouble(module, error) from error
    return code


def _trouble(module: MetricModule, error: BaseException) -> InputError:
    return InputError(f"{module.path}: {type(error).__name__}: {first_line(error)}")
