"""One rank of a training that goes on at another ZeRO stage after two of its three steps.

Usage, under torchrun: resume_rank.py MODEL ENGINE OFFLOADED OUT.
"""

import copy
import gc
import json
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from families_rank import start, steps

from bigtickets.study.spec import ExecutionSpec, ModelSpec
from bigtickets.training.ranks import Ranks, process_group


def resumed(
    first: ModelSpec, second: ModelSpec, ranks: Ranks, seen: list[weakref.ref[Any]]
) -> list[float]:
    """Losses of two steps of the one, and of two more of the other; its model goes into `seen`."""
    engine = start(first, {}, ranks)
    found = steps(engine, ranks, 2)
    seen.append(weakref.ref(engine.module))
    state = {name: tensor.clone() for name, tensor in engine.state().tensors}
    engine.close()
    engine = start(second, {}, ranks)
    engine.set_state(copy.copy(state).__getitem__, 2)
    found += steps(engine, ranks, 2)
    if second.execution.zero == 3:
        assert weights_are_held_once(engine)
    engine.close()
    return found


def weights_are_held_once(engine: Any) -> bool:
    """Whether the optimizer updates the very shards that a forward gathers."""
    optimizer = engine._optimizer
    groups = optimizer.fp16_partitioned_groups_flat, optimizer.fp32_partitioned_groups_flat
    return all(a.data_ptr() == b.data_ptr() for a, b in zip(*groups, strict=True))


def main(folder: str, engine: str, offloaded: str, out: Path, ranks: Ranks) -> None:
    plain = ModelSpec(name="tiny", path=folder, identity="local:tiny")
    ways = {
        "0": ExecutionSpec(),
        "2_offload": ExecutionSpec(zero=2, offload=True),
        "3": ExecutionSpec(zero=3, ds_config=engine),
        "3_offload": ExecutionSpec(zero=3, ds_config=offloaded),
    }
    models = {name: replace(plain, execution=execution) for name, execution in ways.items()}
    names = list(ways)
    pairs = [("0", "0"), *zip(names, names[1:] + names[:1], strict=True)]
    seen: list[weakref.ref[Any]] = []
    found: dict[str, Any] = {
        f"{a} to {b}": resumed(models[a], models[b], ranks, seen) for a, b in pairs
    }
    gc.collect()
    found["alive"] = [pair for pair, model in zip(found, seen, strict=True) if model() is not None]
    engine_through = start(plain, {}, ranks)
    found["through"] = steps(engine_through, ranks, 4)
    engine_through.close()
    if ranks.first:
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group() as group:
        main(*sys.argv[1:4], Path(sys.argv[4]), group)
