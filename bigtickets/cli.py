"""The command line. It reads words and calls `bigtickets.running`; it has no logic of its own."""

import argparse
import contextlib
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path

import bigtickets
from bigtickets.environment import speaks
from bigtickets.errors import InputError
from bigtickets.running.commands import guarded


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code.

    0 done; 1 a defect; 2 bad input or usage; 3 a damaged artefact; 4 some trials failed;
    75 stopped early on a signal, the same command goes on.
    """
    with contextlib.nullcontext() if speaks() else contextlib.redirect_stderr(io.StringIO()):
        options = _parser().parse_args(arguments)
    return guarded(lambda: options.action(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bigtickets", description=bigtickets.__doc__)
    parser.add_argument("--version", action="version", version=bigtickets.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_study_commands(commands)
    _add_run_commands(commands)
    _add_single_commands(commands)
    doctor = commands.add_parser("doctor", help="check this machine")
    doctor.set_defaults(action=_doctor)
    return parser


def _add_study_commands(commands: argparse._SubParsersAction) -> None:
    for name, action, text in (
        ("run", _run, "the whole study, here"),
        ("plan", _plan, "steps, what is reused, hours, memory, disk; touches nothing"),
        ("prefetch", _prefetch, "models and data, checked and tokenised; workers need no network"),
    ):
        parser = _study_parser(commands, name, action, text)
        if name == "run":
            parser.add_argument(
                "-j", "--jobs", type=_positive, help="trials side by side (default: one per GPU)"
            )
        if name == "plan":
            _add_plan_options(parser)
    submit = _study_parser(commands, "submit", _submit, "the whole study, as SLURM jobs")
    submit.add_argument(
        "--cluster", type=Path, required=True, metavar="CLUSTER.yaml", help="what to ask SLURM for"
    )
    submit.add_argument("--dry-run", action="store_true", help="print, and touch nothing")


def _add_plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--gpu-memory",
        type=_positive_number,
        metavar="GIB",
        help="plan for machines with GPUs of that size instead of this one",
    )
    parser.add_argument(
        "--gpus-per-node", type=_positive, metavar="N", help="with --gpu-memory (default: 8)"
    )


def _add_run_commands(commands: argparse._SubParsersAction) -> None:
    for name, action, text in (
        ("status", _status, "what is done, what runs, what failed and why"),
        ("logs", _logs, "the log of one trial"),
        ("retry", _retry, "let failed trials be tried again"),
        ("cancel", _cancel, "end the SLURM jobs of a run"),
        ("report", _report, "table, figures and pages"),
    ):
        parser = commands.add_parser(name, help=text, description=text)
        parser.set_defaults(action=action)
        parser.add_argument("run", type=Path, metavar="RUN", help="run folder: runs/<study>")
        if name == "status":
            parser.add_argument("--json", action="store_true", help="for programs")
            parser.add_argument(
                *("-w", "--watch"),
                type=_positive_number,
                nargs="?",
                const=30.0,
                metavar="SECONDS",
                help="again and again, until it is over (default: every 30)",
            )
        if name == "retry":
            parser.add_argument(
                "step", nargs="*", metavar="STEP", help="ids, their beginnings, or labels"
            )
            parser.add_argument(
                "--failed", action="store_true", help="all failed ones, as without STEP"
            )
        if name == "cancel":
            parser.add_argument("--yes", action="store_true", help="without asking")
        if name == "logs":
            parser.add_argument("trial", metavar="TRIAL", help="id, its beginning, or label")
            parser.add_argument("-f", "--follow", action="store_true", help="until it is over")


def _add_single_commands(commands: argparse._SubParsersAction) -> None:
    for name, action, text in (
        ("score", _score, "one importance pass, with what it needs"),
        ("prune", _prune, "one ticket, with what it needs"),
        ("train", _train, "one trial, with what it needs"),
    ):
        parser = _study_parser(commands, name, action, text)
        parser.add_argument("--model", help="name of a model of the study")
        parser.add_argument("--task", help="name of a task of the study")
        parser.add_argument("--fraction", type=float, help="one of its data_fractions")
        parser.add_argument("--seed", type=int, help="one of its seeds (default: the first)")
        if name == "score":
            continue
        default = "dense" if name == "train" else "winning"
        parser.add_argument("--kind", default=default, help=f"kind of ticket (default: {default})")
        parser.add_argument("--ratio", type=float, help="one of its ratios")
        if name == "prune":
            parser.add_argument(
                "--save", type=Path, metavar="DIR", help="write the pruned pre-trained model there"
            )


def _study_parser(
    commands: argparse._SubParsersAction, name: str, action: Callable, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(action=action)
    parser.add_argument("study", type=Path, metavar="STUDY.yaml")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="run folder (default: runs/<study>)"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return value


def _positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return value


# Each imports what it needs: `--help` and `status` must not wait for torch.


def _run(options: argparse.Namespace) -> None:
    from bigtickets.running.commands import run

    run(options.study, options.out, options.jobs)


def _plan(options: argparse.Namespace) -> None:
    from bigtickets.running.sizes.planning import machine_asked, plan

    machine = machine_asked(options.gpu_memory, options.gpus_per_node)
    plan(options.study, options.out, options.json, machine)


def _prefetch(options: argparse.Namespace) -> None:
    from bigtickets.running.commands import prefetch

    prefetch(options.study, options.out)


def _submit(options: argparse.Namespace) -> None:
    from bigtickets.running.slurm.commands import submit

    submit(options.study, options.cluster, options.out, options.dry_run)


def _cancel(options: argparse.Namespace) -> None:
    from bigtickets.running.slurm.commands import cancel

    cancel(options.run, options.yes)


def _status(options: argparse.Namespace) -> None:
    from bigtickets.running.watching.status import status

    status(options.run, options.json, options.watch)


def _logs(options: argparse.Namespace) -> None:
    from bigtickets.running.watching.logs import logs

    logs(options.run, options.trial, options.follow)


def _retry(options: argparse.Namespace) -> None:
    from bigtickets.running.commands import retry

    if options.step and options.failed:
        raise InputError("--failed: means all failed steps; give it or STEP, not both")
    retry(options.run, options.step)


def _report(options: argparse.Namespace) -> None:
    from bigtickets.running.commands import report

    report(options.run)


def _score(options: argparse.Namespace) -> None:
    _single(options, "scores", "dense", None)


def _prune(options: argparse.Namespace) -> None:
    _single(options, "ticket", options.kind, options.ratio, options.save)


def _train(options: argparse.Namespace) -> None:
    _single(options, "trial", options.kind, options.ratio)


def _single(
    options: argparse.Namespace,
    step: str,
    kind: str,
    ratio: float | None,
    save: Path | None = None,
) -> None:
    from bigtickets.running.single import Wanted, run_single

    wanted = Wanted(options.model, options.task, options.fraction, kind, ratio, options.seed)
    run_single(options.study, options.out, step, wanted, save)


def _doctor(options: argparse.Namespace) -> None:
    from bigtickets.running.doctor import doctor

    doctor()


if __name__ == "__main__":
    sys.exit(main())
