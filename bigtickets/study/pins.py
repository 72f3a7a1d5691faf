"""Hub models at one commit: a branch moves, and a study must not move with it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from bigtickets.errors import BigticketsError
from bigtickets.study.folder import RunFolder
from bigtickets.study.parsing import load_yaml
from bigtickets.study.reader import hub_identity
from bigtickets.study.spec import ModelSpec, StudySpec


def pinned(study: StudySpec, commits: Mapping[str, str]) -> StudySpec:
    """The study with these commits, by model name, as the revisions of its models."""
    models = tuple(
        _at(model, commits[model.name]) if model.name in commits else model
        for model in study.models
    )
    return dataclasses.replace(study, models=models)


def pinned_as_before(study: StudySpec, folder: RunFolder) -> StudySpec:
    """The study with the commits that its run folder was started with.

    A model whose entry asks for a revision gets what it asks for.
    """
    try:
        entries = load_yaml(folder.study_yaml)["models"]
        earlier = {e["name"]: (e["path"], e.get("revision")) for e in entries}
    except (BigticketsError, KeyError, TypeError, AttributeError):
        return study
    commits = {}
    for model in study.models:
        path, commit = earlier.get(model.name, (None, None))
        if path == model.path and commit and model.revision is None and not is_local(model):
            commits[model.name] = commit
    return pinned(study, commits)


def is_local(model: ModelSpec) -> bool:
    """Whether a model is a folder here; else it is a Hub id."""
    return Path(model.path).is_dir()


def _at(model: ModelSpec, commit: str) -> ModelSpec:
    identity = hub_identity(model.path, commit)
    return dataclasses.replace(model, revision=commit, identity=identity)
