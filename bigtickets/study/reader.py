"""Reads a study file; refuses, by name, every key and value that cannot be meant."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from bigtickets.errors import InputError
from bigtickets.study import sources
from bigtickets.study.fingerprint import local_model_identity
from bigtickets.study.modules import headline, read_module, script_in
from bigtickets.study.parsing import did_you_mean, fill, known_keys, load_yaml, shown
from bigtickets.study.rules import check, unique
from bigtickets.study.spec import (
    AnalysisSpec,
    ExecutionSpec,
    ImportanceSpec,
    MetricModule,
    ModelSpec,
    StudySpec,
    TaskSpec,
    TicketsSpec,
    TrainingSpec,
)
from bigtickets.study.tasks import GLUE, METRICS, glue_task, is_regression

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
STUDY_KEYS = tuple(f.name for f in dataclasses.fields(StudySpec))


def read_study(path: Path) -> StudySpec:
    """The study in a YAML file. Every error is an InputError or DamagedError naming file and key.

    Paths in it are relative to the file's folder or, if nothing lies there, to the current one.
    """
    try:
        return _study(load_yaml(path), path.resolve().parent)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _study(raw: dict[str, Any], folder: Path) -> StudySpec:
    known_keys(raw, STUDY_KEYS, "")
    training = fill(TrainingSpec, raw.get("training"), "training")
    execution = fill(ExecutionSpec, raw.get("execution"), "execution")
    execution = _resolved_execution(execution, folder)
    study = fill(
        _Grid, {k: raw[k] for k in ("data_fractions", "seeds") if raw.get(k) is not None}, ""
    )
    spec = StudySpec(
        study=_study_name(raw.get("study")),
        models=_models(raw.get("models"), folder, training, execution),
        tasks=_tasks(raw.get("tasks"), folder),
        data_fractions=study.data_fractions,
        tickets=fill(TicketsSpec, raw.get("tickets"), "tickets"),
        importance=fill(ImportanceSpec, raw.get("importance"), "importance"),
        training=training,
        seeds=study.seeds,
        execution=execution,
        analysis=fill(AnalysisSpec, raw.get("analysis"), "analysis"),
    )
    check(spec)
    return spec


@dataclasses.dataclass(frozen=True)
class _Grid:
    data_fractions: tuple[float, ...] = StudySpec.data_fractions
    seeds: tuple[int, ...] = StudySpec.seeds


def _study_name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InputError(
            f"study: {shown(value)}; give a name of letters, digits, dots, - and _ "
            "(it becomes a folder)"
        )
    return value


def _models(
    value: Any, folder: Path, training: TrainingSpec, execution: ExecutionSpec
) -> tuple[ModelSpec, ...]:
    entries = _entries(value, "models", "{name: L6, path: some-org/some-model}")
    models = tuple(
        _model(entry, f"models[{i}]", folder, training, execution)
        for i, entry in enumerate(entries)
    )
    unique([m.name for m in models], "models", "name")
    return models


def _model(
    entry: Any, key: str, folder: Path, training: TrainingSpec, execution: ExecutionSpec
) -> ModelSpec:
    if isinstance(entry, str):
        entry = {"path": entry}
    keys = [f.name for f in dataclasses.fields(ModelSpec) if f.name != "identity"]
    entry = known_keys(entry, keys, key)
    path = entry.get("path")
    if not isinstance(path, str) or not path:
        raise InputError(f"{key}.path: {shown(path)}; give a local directory or a Hub id")
    path, identity = _model_place(path, entry.get("revision"), key, folder)
    trusted = entry.get("trust_remote_code", False)
    if not isinstance(trusted, bool):
        raise InputError(f"{key}.trust_remote_code: expected true or false, got {shown(trusted)}")
    own_execution = fill(ExecutionSpec, entry.get("execution"), f"{key}.execution", execution)
    return ModelSpec(
        name=_name(entry.get("name", Path(path).name), f"{key}.name"),
        path=path,
        identity=identity,
        revision=entry.get("revision"),
        trust_remote_code=trusted,
        training=fill(TrainingSpec, entry.get("training"), f"{key}.training", training),
        execution=_resolved_execution(own_execution, folder),
    )


def _model_place(path: str, revision: Any, key: str, folder: Path) -> tuple[str, str]:
    """(path or Hub id, identity)."""
    local = existing(path, folder)
    if local is not None:
        if revision is not None:
            raise InputError(f"{key}.revision: only Hub models have one; {local} is a folder")
        if not local.is_dir():
            raise InputError(f"{key}.path: {local} is a file; give the model's folder")
        return str(local), local_model_identity(local, f"{key}.path")
    if not HUB_ID.fullmatch(path) or path.count("/") > 1:
        raise InputError(
            f"{key}.path: {path} does not exist (looked in {folder} and {Path.cwd()}) "
            "and is no Hub id like org/model"
        )
    if revision is not None and not isinstance(revision, str):
        raise InputError(f"{key}.revision: expected text, got {shown(revision)}")
    return path, hub_identity(path, revision)


def hub_identity(path: str, revision: str | None) -> str:
    """What a Hub model is; a moving branch until the revision is a commit."""
    return f"hub:{path}@{revision or 'main'}"


def existing(path: str, folder: Path) -> Path | None:
    """`path` relative to the study's folder or the current one; None if nothing is there."""
    for base in (folder, Path.cwd()):
        candidate = base / Path(path).expanduser()
        if candidate.exists():
            return candidate.resolve()
    return None


def _tasks(value: Any, folder: Path) -> tuple[TaskSpec, ...]:
    entries = _entries(value, "tasks", "sst2")
    tasks = tuple(_task(entry, f"tasks[{i}]", folder) for i, entry in enumerate(entries))
    unique([t.name for t in tasks], "tasks", "name")
    return tasks


CUSTOM_TASK_KEYS = ("name", "train", "validation", "text", "label", "metric", "labels")


def _task(entry: Any, key: str, folder: Path) -> TaskSpec:
    name = entry if isinstance(entry, str) else known_keys(entry, CUSTOM_TASK_KEYS, key).get("name")
    if isinstance(entry, str) or set(entry) == {"name"}:
        if not isinstance(name, str) or name not in GLUE:
            raise InputError(
                f"{key}: {shown(name)} is no GLUE task; {did_you_mean(str(name), GLUE)} "
                "A task of your own needs train, validation, text, label and metric."
            )
        return glue_task(str(name))
    missing = [k for k in ("name", "train", "validation", "text", "label") if k not in entry]
    if missing:
        raise InputError(
            f"{key}.{missing[0]}: missing; a task over files needs name, train, "
            "validation, text and label"
        )
    return _custom_task(entry, _name(name, f"{key}.name"), key, folder)


def _custom_task(entry: dict[str, Any], name: str, key: str, folder: Path) -> TaskSpec:
    metric, module = _metric(entry.get("metric", "accuracy"), f"{key}.metric", folder)
    text = tuple(_words(entry["text"], f"{key}.text"))
    if len(text) > 2 or len(set(text)) < len(text):
        raise InputError(f"{key}.text: give one or two different columns, got {shown(list(text))}")
    label = entry["label"]
    if not isinstance(label, str) or label in text:
        raise InputError(f"{key}.label: give one column that is no text column, got {shown(label)}")
    labels = entry.get("labels")
    task = TaskSpec(
        name=name,
        identity="",
        text=text,
        label=label,
        metric=metric,
        labels=None if labels is None else tuple(_words(labels, f"{key}.labels")),
        regression=module.input == "values" if module else is_regression(metric),
        train=_files(entry["train"], f"{key}.train", folder),
        validation=(("validation", _files(entry["validation"], f"{key}.validation", folder)),),
        module=module,
    )
    return sources.identify(task, key)


def _metric(value: Any, key: str, folder: Path) -> tuple[str, MetricModule | None]:
    """(name of the headline, module): a metric of the table has no module."""
    if isinstance(value, dict):
        place = existing(str(value.get("module") or "."), folder)
        script = script_in(place) if place else None
        # A folder that happens to bear the name of a Hub module is no script.
        module = read_module(value, key, script if script and script.is_file() else None)
        return headline(module), module
    if not isinstance(value, str) or value not in METRICS:
        raise InputError(f"{key}: {shown(value)} is not known; {did_you_mean(str(value), METRICS)}")
    return value, None


def _words(value: Any, key: str) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not words:
        raise InputError(f"{key}: expected a name or a list of names, got {shown(value)}")
    words = [str(w) if isinstance(w, int) and not isinstance(w, bool) else w for w in words]
    if not all(isinstance(w, str) and w for w in words):
        raise InputError(f"{key}: expected a name or a list of names, got {shown(value)}")
    return words


def _files(value: Any, key: str, folder: Path) -> tuple[str, ...]:
    paths = []
    for word in _words(value, key):
        path = existing(word, folder)
        if path is None or not path.is_file():
            raise InputError(f"{key}: {word}: no such file (looked in {folder} and {Path.cwd()})")
        paths.append(str(path))
    return tuple(paths)


def _entries(value: Any, key: str, example: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{key}: expected a list with at least one entry, like [{example}]")
    return value


def _name(value: Any, key: str) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InputError(
            f"{key}: {shown(value)}; a name has letters, digits, dots, -, + and _ only"
        )
    return value


def _resolved_execution(execution: ExecutionSpec, folder: Path) -> ExecutionSpec:
    """Make the paths absolute; the folder of the GLUE files may come from the environment."""
    data_dir = execution.data_dir or os.environ.get("BIGTICKETS_DATA_DIR")
    return dataclasses.replace(
        execution,
        data_dir=_resolved(data_dir, "execution.data_dir", folder),
        ds_config=_resolved(execution.ds_config, "execution.ds_config", folder),
    )


def _resolved(value: str | None, key: str, folder: Path) -> str | None:
    if value is None:
        return None
    found = existing(value, folder)
    if found is None:
        raise InputError(f"{key}: {value} does not exist")
    return str(found)
