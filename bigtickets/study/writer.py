"""Writes a study out whole: every default, every path absolute."""

import dataclasses
from typing import Any

import yaml

from bigtickets.study.spec import ModelSpec, StudySpec, TaskSpec


def study_text(spec: StudySpec) -> str:
    """The study as YAML with every default written out; reading it gives the same study."""
    raw: dict[str, Any] = dataclasses.asdict(spec)
    raw["models"] = [_model_entry(m, spec) for m in spec.models]
    raw["tasks"] = [_task_entry(t) for t in spec.tasks]
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


def _task_entry(task: TaskSpec) -> Any:
    if task.glue:
        return task.name
    entry = {
        "name": task.name,
        "train": list(task.train),
        "validation": list(task.validation[0][1]),
        "text": list(task.text),
        "label": task.label,
        "metric": task.metric,
    }
    return {**entry, "labels": list(task.labels)} if task.labels else entry


def _lists(value: Any) -> Any:
    """YAML has no tuples."""
    if isinstance(value, dict):
        return {k: _lists(v) for k, v in value.items()}
    return [_lists(v) for v in value] if isinstance(value, list | tuple) else value
