"""One rank that may not hold a model whole; rank 0 writes what it could do all the same.

Usage, under torchrun: memory_rank.py MODEL ENGINE OUT. The limit is the kernel's (RLIMIT_DATA): the
memory that the process has, once everything is imported and connected, and SHARE of the model.
"""

import dataclasses
import gc
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from bigtickets.running.steps.prepared import cut_values
from bigtickets.study.spec import ExecutionSpec, ModelSpec
from bigtickets.tickets.families import Masks
from bigtickets.tickets.importance import ImportancePass
from bigtickets.training.engine import scoring_network
from bigtickets.training.hollow import (
    Source,
    Values,
    fill,
    hollow_model,
    names_of,
    pretrained_source,
)
from bigtickets.training.models import load_model
from bigtickets.training.ranks import Ranks, process_group

SHARE = 0.8
IDS_BT, LABELS_B = torch.arange(2, 18).view(2, 8), torch.tensor([0, 1])


def sharded(model: ModelSpec, kept: Masks, ranks: Ranks) -> tuple[PreTrainedModel, Values]:
    """The network and its weights; `kept` empty: the dense one."""
    network = hollow_model(model, 2)
    source = pretrained_source(model, network, 2, 0) if ranks.first else Source()
    return network, cut_values(network, source, kept)


def in_parts(model: ModelSpec, ranks: Ranks) -> dict[str, list[float]]:
    """Score the dense model, and run one that lost half of its units while it was read."""
    scores = dense_scores(model, ranks)
    gc.collect()
    half = {unit: np.indices(mean_LN.shape)[1] % 2 == 0 for unit, mean_LN in scores.items()}
    network, values = sharded(model, half, ranks)
    with scoring_network(network, values, model.execution, ranks) as network, torch.no_grad():
        logits = network(IDS_BT).logits.tolist()
    return {"heads": scores["heads"].ravel().tolist(), "logits": logits}


def dense_scores(model: ModelSpec, ranks: Ranks) -> dict[str, np.ndarray]:
    """Mean scores, L x N per unit type."""
    network, values = sharded(model, {}, ranks)
    with (
        scoring_network(network, values, model.execution, ranks) as network,
        ImportancePass(network, device=ranks.device) as scoring,
    ):
        loss_B = cross_entropy(network(IDS_BT).logits, LABELS_B, reduction="none")
        scoring.add(loss_B, torch.ones(2))
    return scoring.scores().mean()


def limit(extra: int) -> None:
    """Allow this process `extra` bytes more than it has."""
    gc.collect()
    status = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + extra, resource.RLIM_INFINITY))


def no_limit() -> None:
    """Lift it."""
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def fails_whole(model: ModelSpec, load: Callable[[ModelSpec], object]) -> bool:
    """Whether a way of loading it whole runs out of memory."""
    try:
        load(model)
    except (MemoryError, RuntimeError) as error:
        return isinstance(error, MemoryError) or "allocate memory" in str(error)
    finally:
        gc.collect()
    return False


def read_whole(model: ModelSpec) -> PreTrainedModel:
    """As sharding reads it, but all of it kept here."""
    network = hollow_model(model, 2)
    fill(network, pretrained_source(model, network, 2, 0).values(names_of(network), {}))
    return network


def main(folder: str, engine: str, out: Path, ranks: Ranks) -> None:
    execution = ExecutionSpec(zero=3, ds_config=engine, processes_per_trial=ranks.world_size)
    model = ModelSpec(name="wide", path=folder, identity="local:x", execution=execution)
    size = sum(p.numel() * 4 for p in hollow_model(model, 2).parameters())
    in_parts(dataclasses.replace(model, path=f"{folder}-tiny"), ranks)  # all is loaded and built
    limit(int(SHARE * size))
    found = in_parts(model, ranks)
    failed = fails_whole(model, read_whole) and fails_whole(model, lambda m: load_model(m, 2, 0))
    no_limit()
    everywhere = not ranks.any(not failed)[0]
    if ranks.first:
        out.write_text(json.dumps({**found, "bytes": size, "whole_fails": everywhere}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group() as group:
        main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), group)
