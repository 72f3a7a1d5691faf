"""One rank of a training that goes on at another ZeRO stage after two of its three steps.

Usage, under torchrun: resume_rank.py MODEL ENGINE OFFLOADED OUT.
"""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from families_rank import start, steps

from bigtickets.study.spec import ExecutionSpec, ModelSpec
from bigtickets.training.ranks import Ranks, process_group


def resumed(first: ModelSpec, second: ModelSpec, ranks: Ranks) -> list[float]:
    """Losses of two steps of the one, and of two more of the other."""
    engine = start(first, {}, ranks)
    found = steps(engine, ranks, 2)
    state = {name: tensor.clone() for name, tensor in engine.state().tensors}
    engine.close()
    engine = start(second, {}, ranks)
    engine.set_state(copy.copy(state).__getitem__, 2)
    found += steps(engine, ranks, 2)
    engine.close()
    return found


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
    found = {f"{a} to {b}": resumed(models[a], models[b], ranks) for a, b in pairs}
    engine_through = start(plain, {}, ranks)
    found["through"] = steps(engine_through, ranks, 4)
    engine_through.close()
    if ranks.first:
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group() as group:
        main(*sys.argv[1:4], Path(sys.argv[4]), group)
