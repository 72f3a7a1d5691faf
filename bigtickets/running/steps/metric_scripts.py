"""Scripts of metric modules before any worker starts: fetched, tried, kept in the run folder."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bigtickets.errors import InputError
from bigtickets.files import write_bytes
from bigtickets.study.columns import first_line
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import StudySpec, TaskSpec
from bigtickets.study.steps import expand
from bigtickets.training import metric_module
from bigtickets.training.splits import evaluation_names, load_record, load_split


def fetch_hub_scripts(tasks: Iterable[TaskSpec], say: Callable[[str], None]) -> bool:
    """Bring scripts that are not in the local cache into it; whether there were any."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    missing = [task.module for task in tasks if task.module and not task.module.path]
    for module in missing:
        assert module.hub is not None
        say(f"fetching the metric {module.hub}")
        try:
            hf_hub_download(
                module.hub, f"{module.name}.py", repo_type="space", revision=module.revision
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise InputError(
                f"metric {module.hub}: can't be had from the Hub ({first_line(error)}); "
                "give a local script, or fetch it where there is a network"
            ) from None
    return bool(missing)


def check_scripts(tasks: Iterable[TaskSpec]) -> None:
    """InputError for a script that cannot be imported or has no metric in it."""
    for task in tasks:
        if task.module:
            with metric_module.private_cache() as cache:
                metric_module.load(task.module, cache)


def try_scripts(study: StudySpec, folder: RunFolder, staged: Mapping[str, Path]) -> None:
    """Compute each module once for the best constant predictions, as each of its trials will.

    `staged`: folders of tokenised data, by step id, that are not in the run folder yet.
    """
    tasks = {task.name: task for task in study.tasks if task.module}
    for step in expand(study):
        task = tasks.pop(step.task, None) if step.step == "data" else None
        if task is None or task.module is None:
            continue
        data = staged.get(step.id) or folder.data(step.id)
        for name in evaluation_names(load_record(data)):
            split = load_split(data, name)
            try:
                metric_module.majority_score(task.module, split.labels.numpy(), split.outputs)
            except InputError as error:
                raise InputError(f"task {task.name}, on constant predictions: {error}") from error


def keep_scripts(study: StudySpec, folder: RunFolder) -> StudySpec:
    """The study with the scripts' copies in the run folder in place of the scripts."""
    tasks = tuple(_kept(task, folder) for task in study.tasks)
    return dataclasses.replace(study, tasks=tasks)


def _kept(task: TaskSpec, folder: RunFolder) -> TaskSpec:
    module = task.module
    if module is None:
        return task
    copy = folder.metrics / module.digest[:16] / f"{module.name}.py"
    if Path(module.path) != copy:
        write_bytes(copy, Path(module.path).read_bytes())
    kept = dataclasses.replace(
        module, path=str(copy), hub=None, revision=None, trust_remote_code=False
    )
    return dataclasses.replace(task, module=kept)
