"""Metrics that are modules of the `evaluate` library, as a study names them.

Scripts are read here and not run: what can be told from their text is told at once.
"""

import ast
import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigtickets.errors import InputError
from bigtickets.study.parsing import fill, known_keys, shown
from bigtickets.study.spec import MetricInput, MetricModule
from bigtickets.study.tasks import MODULE

HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w-]*")
HUB_OWNER = "evaluate-metric"


@dataclass(frozen=True)
class _Keys:
    """The plain keys of a `metric` mapping; their meaning is `MetricModule`'s."""

    module: str = ""
    result: str | None = None
    input: MetricInput = "classes"
    lower_is_better: bool = False
    points: float = 100.0
    revision: str | None = None
    trust_remote_code: bool = False


KEYS = (*(f.name for f in dataclasses.fields(_Keys)), "arguments")


def read_module(value: dict[str, Any], key: str, script: Path | None) -> MetricModule:
    """The module that a `metric` mapping names; `script` is what lies there locally, if anything.

    InputError for what cannot be meant, and for a Hub module that the study does not trust.
    """
    known_keys(value, KEYS, key)
    given = fill(_Keys, {k: v for k, v in value.items() if k != "arguments"}, key)
    if not given.module:
        raise InputError(f"{key}.module: missing; give a metric script, like ./my_metric.py")
    if not given.points > 0:
        raise InputError(f"{key}.points: {shown(given.points)}; expected more than 0")
    common: dict[str, Any] = {
        "result": given.result,
        "arguments": _arguments(value.get("arguments"), f"{key}.arguments"),
        "input": given.input,
        "lower_is_better": given.lower_is_better,
        "points": given.points,
        "revision": given.revision,
        "trust_remote_code": given.trust_remote_code,
    }
    if script is not None:
        return _local(script, given, key, common)
    return _of_hub(given, key, common)


def headline(module: MetricModule) -> str:
    """What the record calls the score: `module:my_metric.f1`; `minus` where lower is better."""
    sign = "minus " if module.lower_is_better else ""
    return f"{MODULE}{sign}{module.name}" + (f".{module.result}" if module.result else "")


def science_of(module: MetricModule) -> dict[str, Any]:
    """What of a module decides a result: neither its name nor its place."""
    return {
        "module": module.digest,
        "result": module.result,
        "arguments": dict(module.arguments),
        "input": module.input,
        "lower_is_better": module.lower_is_better,
    }


def script_in(place: Path) -> Path:
    """The script itself: a folder holds the one of its own name, as `evaluate` has it."""
    return place / f"{place.name}.py" if place.is_dir() else place


def _local(script: Path, given: _Keys, key: str, common: dict[str, Any]) -> MetricModule:
    if given.revision is not None:
        raise InputError(f"{key}.revision: only modules of the Hub have one; {script} is a file")
    return MetricModule(script.stem, str(script), check_script(script, key), **common)


def _of_hub(given: _Keys, key: str, common: dict[str, Any]) -> MetricModule:
    name = given.module
    if name.endswith(".py") or not HUB_NAME.fullmatch(name):
        raise InputError(f"{key}.module: {name}: no such file")
    if not given.trust_remote_code:
        raise InputError(
            f"{key}.module: {name}: no such file; the Hub's module of this name would be "
            "downloaded and run:\nif you trust its code, add trust_remote_code: true"
        )
    hub = name if "/" in name else f"{HUB_OWNER}/{name}"
    found = _cached(hub, given.revision)
    digest = check_script(found, key) if found else f"hub:{hub}@{given.revision or 'main'}"
    return MetricModule(hub.split("/")[1], str(found or ""), digest, hub=hub, **common)


def _cached(hub: str, revision: str | None) -> Path | None:
    """The script in the local cache of the Hub; asks no network."""
    from huggingface_hub import try_to_load_from_cache  # slow to import, needed only here

    file = f"{hub.split('/')[1]}.py"
    path = try_to_load_from_cache(hub, file, revision=revision, repo_type="space")
    return Path(path) if isinstance(path, str) else None


def check_script(path: Path, key: str) -> str:
    """SHA-256 of a metric script in hex; InputError if it is none by its text."""
    try:
        data = path.read_bytes()
        tree = ast.parse(data)
    except OSError as error:
        raise InputError(f"{key}.module: {path}: {error.strerror or error}") from None
    except SyntaxError as error:
        raise InputError(
            f"{key}.module: {path}: no valid Python in line {error.lineno}: {error.msg}"
        ) from None
    except ValueError as error:
        raise InputError(f"{key}.module: {path}: no valid Python: {error}") from None
    methods = {
        item.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.FunctionDef)
    }
    if "_compute" not in methods:
        raise InputError(
            f"{key}.module: {path}: no class with a method _compute; a metric module is a class "
            "that extends evaluate.Metric"
        )
    return hashlib.sha256(data).hexdigest()


def _arguments(value: Any, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{key}: expected a mapping of keys, got {shown(value)}")
    for name in ("predictions", "references"):
        if name in value:
            raise InputError(f"{key}.{name}: comes from the evaluation split; remove the key")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key}: only numbers, words, lists and mappings; {error}") from None
    return value
