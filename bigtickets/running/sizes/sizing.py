"""How many processes and which ZeRO stage a model should be run with, and `auto` made so."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigtickets.errors import InputError
from bigtickets.files import read_json
from bigtickets.running.sizes.memory import GIB, Layout, Memory, memory_of
from bigtickets.study.fingerprint import model_config
from bigtickets.study.spec import ExecutionSpec, ModelSpec, StudySpec, TrainingSpec

STAGES = ((0, False), (1, False), (2, False), (2, True), (3, False), (3, True))
"""(stage, offload) of every column of the plan's table."""


@dataclass(frozen=True)
class Machine:
    """What trials run on."""

    memory_gb: float
    """Of one GPU or, without GPUs, of the whole machine; GiB."""
    gpus: int
    """GPUs of one machine; 0: trials run on its CPU."""
    nodes: int = 1
    """Machines that one trial may take."""


@dataclass(frozen=True)
class Choice:
    """How a trial should be run."""

    zero: int
    offload: bool
    processes: int
    nodes: int
    memory_gb: float
    """Of one process at its fullest, in GiB."""
    host_gb: float
    """Of one process in its machine's memory beside that, in GiB."""
    fits: bool
    """False: no way fits; this one needs least."""


def choose(
    config: Mapping[str, Any],
    training: TrainingSpec,
    execution: ExecutionSpec,
    gpu_gb: float,
    max_gpus: int,
    gpus_per_node: int | None = None,
) -> Choice:
    """The fewest GPUs with which one trial fits `gpu_gb` each, and with them the lowest stage.

    Offloading is slow: it comes after all other ways. What `execution` fixes stays fixed.
    InputError where the config is none of a known family.
    """
    per_node, least = gpus_per_node or max_gpus, None
    for layout in _layouts(execution, max_gpus, per_node):
        found = _choice(layout, memory_of(config, training, execution, layout), gpu_gb, per_node)
        if found.fits:
            return found
        if least is None or found.memory_gb < least.memory_gb:
            least = found
    assert least is not None
    return least


def choose_cpu(
    config: Mapping[str, Any], training: TrainingSpec, execution: ExecutionSpec, ram_gb: float
) -> Choice:
    """One process without ZeRO: processes of one machine share its memory, so more save nothing."""
    zero = 0 if execution.zero == "auto" else execution.zero
    processes = 1 if execution.processes_per_trial == "auto" else execution.processes_per_trial
    layout = Layout(zero, execution.offload, processes)
    memory = memory_of(config, training, execution, layout, cpu=True)
    found = _choice(layout, memory, ram_gb, processes)
    return dataclasses.replace(found, fits=found.memory_gb * processes <= ram_gb)


def resolve(study: StudySpec, machine: Machine | Callable[[], Machine]) -> StudySpec:
    """The study without `auto` for ZeRO stage and processes: each model's own choice.

    `machine`: what trials run on, or a function that finds out, which is asked only where it
    matters. InputError where a model that leaves the choice open fits in no way.
    """
    executions = [study.execution, *(model.execution for model in study.models)]
    if not any(_open(execution) for execution in executions):
        return study
    found = machine if isinstance(machine, Machine) else machine()
    models = tuple(_resolved(model, found) for model in study.models)
    execution = models[0].execution if _open(study.execution) else study.execution
    return dataclasses.replace(study, models=models, execution=execution)


def choice_for(config: Mapping[str, Any], model: ModelSpec, machine: Machine) -> Choice:
    """How a model's trials should run on these machines; what its `execution` fixes is kept."""
    if not machine.gpus:
        return choose_cpu(config, model.training, model.execution, machine.memory_gb)
    most = machine.gpus * machine.nodes
    asked = model.execution
    return choose(config, model.training, asked, machine.memory_gb, most, machine.gpus)


def config_of(model: ModelSpec) -> dict[str, Any] | None:
    """A model's config.json; None for a Hub model that isn't in the local cache."""
    if Path(model.path).is_dir():
        return model_config(Path(model.path), model.name)
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
    return read_json(Path(path)) if isinstance(path, str) else None


def _resolved(model: ModelSpec, machine: Machine) -> ModelSpec:
    if not _open(model.execution):
        return model
    config = config_of(model)
    if config is None:
        raise InputError(
            f"model {model.name}: execution says auto and {model.path} isn't in the local Hub "
            "cache; run `bigtickets prefetch`, or give zero and processes_per_trial"
        )
    choice = choice_for(config, model, machine)
    if not choice.fits:
        raise InputError(
            f"model {model.name}: one trial takes {choice.memory_gb:.1f} GiB on each of "
            f"{choice.processes} processes, and there are {machine.memory_gb:.1f}; "
            "see `bigtickets plan`"
        )
    return dataclasses.replace(model, execution=laid_out(model.execution, choice))


def left_open(model: ModelSpec) -> ModelSpec:
    """The model with every choice left to `choose`."""
    execution = dataclasses.replace(model.execution, zero="auto", processes_per_trial="auto")
    return dataclasses.replace(model, execution=execution)


def laid_out(execution: ExecutionSpec, choice: Choice) -> ExecutionSpec:
    """`execution` as chosen."""
    chosen: dict[str, Any] = {"zero": choice.zero, "processes_per_trial": choice.processes}
    if choice.offload:
        chosen["offload"] = True
    return dataclasses.replace(execution, **chosen)


def _open(execution: ExecutionSpec) -> bool:
    return "auto" in (execution.zero, execution.processes_per_trial)


def process_counts(most: int, gpus_per_node: int) -> list[int]:
    """1, 2, 4, ... GPUs of one node, then whole nodes by doubling."""
    counts = [n for n in (1, 2, 4, 8, 16, 32) if n < gpus_per_node] + [gpus_per_node]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return [n for n in counts if n <= most]


def _layouts(execution: ExecutionSpec, most: int, gpus_per_node: int) -> Iterator[Layout]:
    """Ways that `execution` leaves open, the preferred first."""
    asked, counts = execution.zero, process_counts(most, gpus_per_node)
    if execution.processes_per_trial != "auto":
        counts = [execution.processes_per_trial]
    offloads = [False, True] if asked == "auto" and not execution.offload else [execution.offload]
    for offload in offloads:
        for processes in counts:
            for zero, offloading in STAGES:
                if asked in ("auto", zero) and offloading == offload:
                    yield Layout(zero, offload, processes)


def _choice(layout: Layout, memory: Memory, gpu_gb: float, gpus_per_node: int) -> Choice:
    return Choice(
        zero=layout.zero,
        offload=layout.offload,
        processes=layout.processes,
        nodes=-(-layout.processes // gpus_per_node),
        memory_gb=memory.peak / GIB,
        host_gb=memory.host / GIB,
        fits=memory.peak <= gpu_gb * GIB,
    )
