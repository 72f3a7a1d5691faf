"""The part of a plan about memory: what each way of running a model takes, and the choice."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from bigtickets.running.sizes.activations import micro_batch
from bigtickets.running.sizes.memory import GIB, Layout, memory_of
from bigtickets.running.sizes.sizing import STAGES, Machine, choice_for, left_open
from bigtickets.study.spec import ModelSpec

MOST_NODES = 64
"""Machines that a plan would choose at most."""


def memory_facts(config: Mapping[str, Any], model: ModelSpec, machine: Machine) -> dict[str, Any]:
    """As JSON: GiB per process of every stage for some numbers of processes; what the study asks
    for; what would be chosen if it left all open."""
    many = replace(machine, nodes=MOST_NODES)
    free, asked = choice_for(config, left_open(model), many), choice_for(config, model, many)
    # The processes of a CPU share its memory, and there is nothing to offload from.
    counts = sorted({1, asked.processes, free.processes, machine.gpus or 1})
    stages = [stage for stage in STAGES if machine.gpus or not stage[1]]
    return {
        "examples": {n: micro_batch(model.training, model.execution, n) for n in counts},
        "length": model.training.max_length,
        "ways": [_way(config, model, machine, Layout(*s, n)) for n in counts for s in stages],
        "asked": asdict(asked),
        "choice": asdict(free),
        "device_gb": machine.memory_gb,
        "gpus": machine.gpus,
    }


def _way(
    config: Mapping[str, Any], model: ModelSpec, machine: Machine, layout: Layout
) -> dict[str, Any]:
    memory = memory_of(config, model.training, model.execution, layout, cpu=not machine.gpus)
    parts = {f"{name}_gb": round(size / GIB, 4) for name, size in asdict(memory).items()}
    return {**asdict(layout), **parts}


def memory_lines(facts: dict[str, Any]) -> list[str]:
    """The table, then how what is asked for fits, then the choice."""
    lines: list[str] = []
    for n, examples in facts["examples"].items():
        ways = [way for way in facts["ways"] if way["processes"] == n]
        if not lines:
            names = [Layout(way["zero"], way["offload"]).name for way in ways]
            lines = [f"{'GiB per process':<21} ZeRO" + "".join(f"{name:>10}" for name in names)]
        cells = "".join(f"{way['peak_gb']:>10.1f}" for way in ways)
        row = f"{n} x {examples} examples of {facts['length']}"
        lines.append(f"{row:<26}{cells}")
    lines.append("asked:  " + _sentence(facts["asked"], facts))
    if facts["choice"] != facts["asked"]:
        lines.append("choice: " + _sentence(facts["choice"], facts))
    return lines


def _sentence(choice: dict[str, Any], facts: dict[str, Any]) -> str:
    """One way of running in words, with whether it fits."""
    way = Layout(choice["zero"], choice["offload"]).name
    device = "of each GPU" if facts["gpus"] else "of this machine"
    groups = f"{choice['processes']} process" + ("es" if choice["processes"] > 1 else "")
    if choice["nodes"] > 1:
        groups += f" on {choice['nodes']} machines"
    text = f"ZeRO {way} on {groups}: {choice['memory_gb']:.1f} of {facts['device_gb']:.1f} GiB"
    text += f" {device}" + ("" if choice["fits"] else ": DOES NOT FIT")
    host = choice["host_gb"] * choice["processes"] / choice["nodes"]
    return text + (f", and {host:.0f} GiB in each machine's memory" if host >= 1 else "")
