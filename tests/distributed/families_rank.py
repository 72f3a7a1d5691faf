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

from bigtickets.study.spec import ExecutionSpec, ModelSpec, TrainingSpec
from bigtickets.tickets.importance import ImportancePass
from bigtickets.tickets.surgery import remove_units, selections, shrink
from bigtickets.training.engine import Engine, scoring_network
from bigtickets.training.hollow import Source, Values, hollow_model, names_of, pretrained_source
from bigtickets.training.models import load_model
from bigtickets.training.ranks import Ranks, process_group

IDS_BT = torch.tensor([[5, 9, 12, 7], [8, 4, 6, 11]])
LABELS_B = torch.tensor([0, 1])


def build(model: ModelSpec, kept: Any, ranks: Ranks) -> tuple[PreTrainedModel, Values | None]:
    """The network, hollow if it will be sharded, with `kept` units if that is given."""
    if model.execution.zero < 3:
        network = load_model(model, 3, 0)
        return remove_units(network, kept) if kept else network, None
    network = hollow_model(model, 3)
    source = pretrained_source(model, network, 3, 0) if ranks.first else Source()
    cut = selections(network, kept) if kept else {}
    if kept:
        shrink(network, kept)
    return network, source.values(names_of(network), cut)


def losses(model: torch.nn.Module, ranks: Ranks) -> Tensor:
    """Of this rank's example, (1,)."""
    mine = slice(ranks.rank, ranks.rank + 1)
    logits = model(input_ids=IDS_BT[mine], attention_mask=torch.ones_like(IDS_BT[mine])).logits
    return cross_entropy(logits, LABELS_B[mine], reduction="none")


def figures(model: ModelSpec, ranks: Ranks) -> dict[str, Any]:
    """Scores, and the loss of the pruned model before and after a step."""
    network, values = build(model, None, ranks)
    with scoring_network(network, values, model.execution, ranks) as network:
        network.config.pad_token_id = 1
        with ImportancePass(network, device=ranks.device) as scoring:
            scoring.add(losses(network, ranks), torch.ones(1))
            scoring.reduce(ranks.sum_)
    scores = scoring.scores().mean()
    # The better half of each layer, so that both runs keep the same ones.
    kept = {unit: mean_LN >= np.median(mean_LN, 1)[:, None] for unit, mean_LN in scores.items()}
    network, values = build(model, kept, ranks)
    network.config.pad_token_id = 1
    training = TrainingSpec(learning_rate=1e-2)
    engine = Engine(network, training, model.execution, ranks, values)
    found = []
    for _ in range(2):
        loss = losses(engine, ranks).sum()
        engine.backward(loss, True)
        engine.step(1e-2)
        total = loss.detach().clone()
        ranks.sum_(total)
        found.append(float(total))
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
