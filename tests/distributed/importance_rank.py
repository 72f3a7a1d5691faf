"""One rank of an importance pass over uneven shards; rank 0 writes the scores.

Usage, under torchrun: importance_rank.py FOLDER. Writes FOLDER/<granularity>-<ranks>.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification

from bigtickets.tickets.importance import ImportancePass

SHARDS = {1: [13], 2: [9, 4], 4: [6, 4, 3, 0]}
"""Examples of each rank, by world size; one rank has none."""


def score_shard(folder: Path, ranks: int, rank: int, sum_in_place: Callable) -> None:
    """Score one rank's examples, reduce, and let rank 0 write."""
    model, ids_ET, labels_E = problem()
    start = sum(SHARDS[ranks][:rank])
    shard = range(start, start + SHARDS[ranks][rank])
    for granularity in ("example", "token", "square"):
        with ImportancePass(model, ("heads", "neurons", "blocks"), granularity) as scoring:
            for first in range(shard.start, shard.stop, 4):
                rows = slice(first, min(first + 4, shard.stop))
                logits_BC = model(ids_ET[rows]).logits
                loss_B = cross_entropy(logits_BC, labels_E[rows], reduction="none")
                scoring.add(loss_B, torch.ones(len(loss_B)))
        scoring.reduce(sum_in_place)
        if rank == 0:
            scoring.scores().save(folder / f"{granularity}-{ranks}")


def problem() -> tuple[BertForSequenceClassification, torch.Tensor, torch.Tensor]:
    """The same model and 13 examples on every rank."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    model = BertForSequenceClassification(config)
    return model, torch.randint(1, 60, (13, 12)), torch.randint(0, 2, (13,))


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    score_shard(Path(sys.argv[1]), dist.get_world_size(), dist.get_rank(), dist.all_reduce)
    dist.destroy_process_group()
