"""Single steps for scripts: score, prune or train one thing, with whatever it needs.

The same under torchrun: `torchrun --nproc_per_node 2 launch/step.py score STUDY.yaml`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bigtickets.errors import BigticketsError, InputError, Interrupted
from bigtickets.running.commands import prepare
from bigtickets.running.context import Context
from bigtickets.running.signals import Stop
from bigtickets.running.worker import make_context, work
from bigtickets.study.folder import RunFolder
from bigtickets.study.parsing import did_you_mean
from bigtickets.study.reader import read_study
from bigtickets.study.spec import StudySpec
from bigtickets.study.steps import SEEDED_KINDS, Step, expand
from bigtickets.training.hardware import use_threads
from bigtickets.training.ranks import process_group


@dataclass(frozen=True)
class Wanted:
    """Which step of a study; None: the study has only one to choose from, or its first."""

    model: str | None = None
    task: str | None = None
    fraction: float | None = None
    kind: str = "dense"
    ratio: float | None = None
    seed: int | None = None


def run_single(
    study_path: Path, out: Path | None, step_name: str, wanted: Wanted, save: Path | None = None
) -> None:
    """Run one step (`scores`, `ticket` or `trial`) and what it needs; print where it lies."""
    stop = Stop()
    stop.install()
    with process_group() as ranks:
        ranks.each(lambda: _check_asked(study_path, step_name, wanted, save))
        root = ranks.at_first(lambda: str(prepare(study_path, out, stop)[1].root))
        context = make_context(RunFolder(Path(root)), ranks, stop)
        target = choose(context.study, step_name, wanted)
        use_threads(context.model(target).execution)
        chosen = with_needs(context.steps, target.id)
        ranks.at_first(lambda: _reopen(context, chosen))
        work(context, chosen)
        ranks.at_first(lambda: _finish(context, chosen, target, save))


def _check_asked(study_path: Path, step_name: str, wanted: Wanted, save: Path | None) -> None:
    """What can be wrong before anything is written."""
    choose(read_study(study_path), step_name, wanted)
    if save is not None and save.exists() and any(save.iterdir()):
        raise InputError(f"--save {save}: is not empty; give a new folder")


def _finish(context: Context, chosen: list[str], target: Step, save: Path | None) -> None:
    """Where the result lies, if it is there."""
    _check(context, chosen, target)
    print(context.folder.result(target.step, target.id))
    if save is not None:
        _save_pruned(context, target, save)


def choose(study: StudySpec, step_name: str, wanted: Wanted) -> Step:
    """The one step of a study that fits; InputError if none does."""
    _known(wanted.model, [m.name for m in study.models], "--model")
    _known(wanted.task, [t.name for t in study.tasks], "--task")
    _known(wanted.fraction, list(study.data_fractions), "--fraction")
    seed = study.seeds[0] if wanted.seed is None else wanted.seed
    _known(seed, list(study.seeds), "--seed")
    kind = "dense" if step_name == "scores" else wanted.kind
    if kind == "dense" and wanted.ratio:
        raise InputError(f"--ratio {wanted.ratio:g}: the dense model has none; give --kind too")
    if kind != "dense":
        kinds: list[str] = list(study.tickets.kinds)
        if step_name == "ticket" and "reinit" in kinds:
            if kind == "reinit":
                raise InputError(
                    "--kind reinit: its ticket is the winning one, only the weights differ; "
                    "give --kind winning"
                )
            kinds.append("winning")
        _known(kind, kinds, "--kind")
        if wanted.ratio is None:
            raise InputError("--ratio: missing; give one of the study's ratios")
        _known(wanted.ratio, list(study.tickets.ratios), "--ratio")
    steps = expand(study)
    scored = {step.id: step.seed for step in steps if step.step == "scores"}
    fitting = [
        step
        for step in steps
        if step.step == step_name
        and wanted.model in (None, step.model)
        and wanted.task in (None, step.task)
        and wanted.fraction in (None, step.data_fraction)
        and step.kind == kind
        and (kind == "dense" or step.ratio == wanted.ratio)
        and _seed_fits(study, step, seed, scored)
    ]
    if not fitting:
        raise InputError(f"the study has no such {step_name} step; see `bigtickets plan`")
    cells = {(s.model, s.task, s.data_fraction) for s in fitting}
    if len(cells) > 1:
        raise InputError("the study has several models or tasks: say which by --model and --task")
    return fitting[0]


def _seed_fits(study: StudySpec, step: Step, seed: int, scored: dict[str, int | None]) -> bool:
    if step.step == "ticket" and step.kind not in SEEDED_KINDS:
        return study.importance.seeds == "one" or scored[step.needs[0]] == seed
    if step.step == "scores" and study.importance.seeds == "one":
        return True
    return step.seed == seed


def with_needs(steps: dict[str, Step], step_id: str) -> list[str]:
    """A step and all that it needs, needs first."""
    ids: list[str] = []
    for need in steps[step_id].needs:
        ids += [i for i in with_needs(steps, need) if i not in ids]
    return [*ids, step_id]


def _known(value: object, known: list, option: str) -> None:
    if value is not None and value not in known:
        hint = did_you_mean(str(value), [str(k) for k in known])
        raise InputError(f"{option} {value}: not in the study; {hint}")


def _reopen(context: Context, chosen: Iterable[str]) -> None:
    """Asked for by name, a step that failed before is tried again."""
    for step_id in chosen:
        last = context.claims.last(step_id)
        if last is not None and last.state == "failed":
            context.claims.reopen(step_id)


def _check(context: Context, chosen: list[str], target: Step) -> None:
    if context.done(target.id):
        return
    if context.stop.asked():
        raise Interrupted("stopped early; the same command goes on where it stopped")
    for step_id in chosen:
        last = context.claims.last(step_id)
        if last is not None and last.state == "failed":
            kind = InputError if last.failure == "input" else BigticketsError
            raise kind(f"{context.steps[step_id].label}: {last.message}")
    raise BigticketsError(f"{target.label}: not done; another worker may have it")


def _save_pruned(context: Context, target: Step, save: Path) -> None:
    """The pre-trained model with the ticket applied, as a folder that `load_pruned` reads."""
    from transformers import AutoTokenizer

    from bigtickets.files import read_json
    from bigtickets.tickets.surgery import remove_units, save_pruned
    from bigtickets.tickets.ticket import Ticket
    from bigtickets.training.models import load_model
    from bigtickets.training.splits import load_record

    model, path = context.model(target), context.folder.ticket(target.id)
    ticket = Ticket.from_json(read_json(path), str(path))
    scores = context.steps[target.needs[0]]
    outputs = load_record(context.data(scores))["outputs"]
    network = remove_units(load_model(model, outputs, context.study.seeds[0]), ticket.kept)
    tokenizer = AutoTokenizer.from_pretrained(
        model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
    )
    save_pruned(network, tokenizer, save, ticket)
    print(f"in Python: from bigtickets import load_pruned; model = load_pruned({str(save)!r})")
