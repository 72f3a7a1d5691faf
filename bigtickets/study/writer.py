"""Writes a study out whole: every default, every path absolute."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from bigtickets.study.spec import MetricModule, ModelSpec, StudySpec, TaskSpec


def study_text(spec: StudySpec, folder: Path) -> str:
    """The study as YAML with every default written out; reading it gives the same study.

    `folder` is where the text will lie: what is inside it moves with it, so its path is relative.
    """
    raw: dict[str, Any] = dataclasses.asdict(spec)
    raw["models"] = [_model_entry(m, spec) for m in spec.models]
    raw["tasks"] = [_task_entry(t, folder) for t in spec.tasks]
    return yaml.safe_dump(_lists(raw), sort_keys=False, allow_unicode=True, width=100)


def _model_entry(model: ModelSpec, spec: StudySpec) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": model.name, "path": model.path, "revision": model.revision}
    entry["trust_remote_code"] = model.trust_remote_code or None
    for key, own, base in (
        ("training", model.training, spec.training),
        ("execution", model.execution, spec.execution),
    ):
        changed = {k: v for k, v in vars(own).items() if v != getattr(base, k)}
        entry[key] = changed or None
    return {k: v for k, v in entry.items() if v is not None}


def _task_entry(task: TaskSpec, folder: Path) -> Any:
    if task.glue:
        return task.name
    entry = {
        "name": task.name,
        "train": list(task.train),
        "validation": list(task.validation[0][1]),
        "text": list(task.text),
        "label": task.label,
        "metric": _module_entry(task.module, folder) if task.module else task.metric,
    }
    return {**entry, "labels": list(task.labels)} if task.labels else entry


def _module_entry(module: MetricModule, folder: Path) -> dict[str, Any]:
    entry = dataclasses.asdict(module)
    for key in ("name", "path", "digest", "hub"):
        del entry[key]
    path = Path(module.path)
    inside = path.is_relative_to(folder)
    entry["module"] = module.hub or str(path.relative_to(folder) if inside else path)
    return {k: v for k, v in entry.items() if v is not None}


def _lists(value: Any) -> Any:
    """YAML has no tuples."""
    if isinstance(value, dict):
        return {k: _lists(v) for k, v in value.items()}
    return [_lists(v) for v in value] if isinstance(value, list | tuple) else value
