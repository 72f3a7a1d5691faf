"""Before any worker starts: is everything there, does it fit, and the data tokenised."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from bigtickets.errors import InputError
from bigtickets.running.context import Context
from bigtickets.running.steps.metric_scripts import try_scripts
from bigtickets.study.claims import Claim
from bigtickets.study.fingerprint import model_config
from bigtickets.study.folder import RunFolder
from bigtickets.study.pins import is_local
from bigtickets.study.spec import ModelSpec, StudySpec
from bigtickets.study.steps import Step, expand
from bigtickets.tickets.families import family_of, shapes_of
from bigtickets.training.data import prepare
from bigtickets.training.models import read_config
from bigtickets.training.settings import read_ds_config

# Positions that a family's embedding keeps for padding.
POSITION_OFFSETS = {"roberta": 2, "xlm-roberta": 2, "mpnet": 2}


def check_models(study: StudySpec) -> None:
    """Every model's family is known, it is long enough, and its engine settings are right."""
    for model in study.models:
        read_ds_config(model.execution)
        if Path(model.path).is_dir():
            # Before transformers reads it: that would trip over another family's fields.
            family_of(model_config(Path(model.path), model.name))
        config = read_config(model)
        shapes = shapes_of(config)
        if not shapes.vocab:
            raise InputError(
                f"model {model.name} ({config['model_type']}) takes images; a study trains on text"
            )
        positions = shapes.positions - POSITION_OFFSETS.get(config["model_type"], 0)
        if model.training.max_length > positions:
            raise InputError(
                f"training.max_length: {model.training.max_length} is more than the "
                f"{positions} positions of model {model.name}; lower it"
            )


def prepare_data(
    study: StudySpec, folder: RunFolder, say: Callable[[str], None], tick: Callable[[], None]
) -> None:
    """Tokenise what is not there yet: all of it or, after an error or a stop, none."""
    missing = [
        step
        for step in expand(study)
        if step.step == "data" and not folder.result("data", step.id).exists()
    ]
    with tempfile.TemporaryDirectory(prefix="bigtickets-") as staging:
        made = [(step, _tokenise(study, step, Path(staging), say, tick)) for step in missing]
        try_scripts(study, folder, {step.id: path for step, path in made})
        for step, path in made:
            _move(path, folder.data(step.id))


def run_data(context: Context, step: Step, claim: Claim) -> bool:
    """Tokenise one task for one tokenizer: only where `prepare_data` has not."""
    if context.ranks.first:
        model, task = context.model(step), context.task(step)
        prepare(
            model,
            task,
            model.training.max_length,
            context.folder.data(step.id),
            model.execution.data_dir,
            # Several ranks must stop together; they do after this step.
            context.stop.raise_if_asked if context.ranks.world_size == 1 else None,
        )
    context.ranks.barrier()
    return True


def fetch_hub_models(models: Iterable[ModelSpec], say: Callable[[str], None]) -> dict[str, str]:
    """Bring Hub models into the local cache, so that workers need no network.

    Returns the commit of each by its name in the study.
    """
    commits = {}
    for model in models:
        if not is_local(model):
            say(f"fetching {model.path}")
            # The cache has one folder per commit.
            commits[model.name] = _snapshot(model).name
    return commits


def _snapshot(model: ModelSpec) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    patterns += ["*.py"] if model.trust_remote_code else []
    try:
        folder = snapshot_download(model.path, revision=model.revision, allow_patterns=patterns)
        return Path(folder)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise InputError(
            f"model {model.name}: {model.path} can't be had from the Hub ({first}); "
            "give a local directory, or fetch it where there is a network"
        ) from None


def _tokenise(
    study: StudySpec,
    step: Step,
    staging: Path,
    say: Callable[[str], None],
    tick: Callable[[], None],
) -> Path:
    model = next(m for m in study.models if m.name == step.model)
    task = next(t for t in study.tasks if t.name == step.task)
    say(f"tokenising {step.label.removesuffix('/data')}")
    target = staging / step.id
    length = model.training.max_length
    return prepare(model, task, length, target, model.execution.data_dir, tick)


def _move(source: Path, target: Path) -> None:
    """Across file systems too; the target appears whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copytree(source, temporary)
    try:
        os.rename(temporary, target)
    except OSError:  # another run has put it there meanwhile
        shutil.rmtree(temporary)
