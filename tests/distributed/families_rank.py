"""One rank that scores, prunes and trains a step of a model of every family, sharded and not.

Usage, under torchrun: families_rank.py FOLDER ENGINE OUT. FOLDER holds a small model per family.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from bigtickets.running.steps.prepared import cut_values
from bigtickets.study.spec import ExecutionSpec, ModelSpec, TrainingSpec
from bigtickets.tickets.families import Masks
from bigtickets.tickets.importance import ImportancePass
from bigtickets.tickets.surgery import remove_units
from bigtickets.training.engine import Engine, scoring_network
from bigtickets.training.hollow import Source, hollow_model, pretrained_source
from bigtickets.training.models import Values, load_model
from bigtickets.training.ranks import Ranks, process_group

IDS_BT = torch.tensor([[5, 9, 12, 7], [8, 4, 6, 11]])
LABELS_B = torch.tensor([0, 1])


def build(model: ModelSpec, kept: Masks, ranks: Ranks) -> tuple[PreTrainedModel, Values | None]:
    """The network, hollow if it will be sharded, and its weights; `kept` empty: the dense one."""
    if model.execution.zero < 3:
        network, values = load_model(model, 3, 0), None
        if kept:
            remove_units(network, kept)
    else:
        network = hollow_model(model, 3)
        source = pretrained_source(model, network, 3, 0) if ranks.first else Source()
        values = cut_values(network, source, kept)
    network.config.pad_token_id = 1
    return network, values


def losses(model: torch.nn.Module, ranks: Ranks) -> Tensor:
    """Of this rank's example, (1,)."""
    mine = slice(ranks.rank, ranks.rank + 1)
    logits = model(input_ids=IDS_BT[mine], attention_mask=torch.ones_like(IDS_BT[mine])).logits
    return cross_entropy(logits, LABELS_B[mine], reduction="none")


def start(model: ModelSpec, kept: Masks, ranks: Ranks) -> Engine:
    """An engine before its first step."""
    network, values = build(model, kept, ranks)
    return Engine(network, TrainingSpec(), model.execution, ranks, values)


def steps(engine: Engine, ranks: Ranks, count: int) -> list[float]:
    """Loss over all ranks of each step."""
    found = []
    for _ in range(count):
        loss = losses(engine, ranks).sum()
        engine.backward(loss, True)
        engine.step(1e-2)
        total = loss.detach().clone()
        ranks.sum_(total)
        found.append(float(total))
    return found


def figures(model: ModelSpec, ranks: Ranks) -> dict[str, Any]:
    """Scores, and the loss of the pruned model before and after a step."""
    network, values = build(model, {}, ranks)
    with (
        scoring_network(network, values, model.execution, ranks) as network,
        ImportancePass(network, device=ranks.device) as scoring,
    ):
        scoring.add(losses(network, ranks), torch.ones(1))
        scoring.reduce(ranks.sum_)
    scores = scoring.scores().mean()
    # The better half of each layer, so that both runs keep the same ones.
    kept = {unit: mean_LN >= np.median(mean_LN, 1)[:, None] for unit, mean_LN in scores.items()}
    engine = start(model, kept, ranks)
    found = steps(engine, ranks, 2)
    engine.close()
    return {"losses": found, **{unit: mean.ravel().tolist() for unit, mean in scores.items()}}


def main(folder: Path, engine: str, out: Path, ranks: Ranks) -> None:
    found = {}
    for path in sorted(folder.iterdir()):
        plain = ModelSpec(name=path.name, path=str(path), identity=f"local:{path.name}")
        sharded = replace(plain, execution=ExecutionSpec(zero=3, ds_config=engine))
        found[path.name] = [figures(model, ranks) for model in (plain, sharded)]
    if ranks.first:
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group() as group:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), group)
