"""Evaluation that counts every example once, on any number of ranks."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bigtickets.training.batches import collate, evaluation_batches
from bigtickets.training.hardware import tokens_per_pass
from bigtickets.training.ranks import Ranks
from bigtickets.training.splits import Split

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    ranks: Ranks,
    bf16: bool,
    tick: Callable[[], None],
) -> np.ndarray:
    """Logits of every example of `split` on every rank: (N, C) float32, C = 1 for regression.

    Each rank fills in its own rows of a zero matrix and the ranks' matrices are added once:
    an exact gather. `tick` is called before every batch.
    """
    was_training = model.training
    model.eval()
    logits_NC = torch.zeros(len(split), split.outputs, device=ranks.device)
    batches = evaluation_batches(
        split.lengths, ranks.rank, ranks.world_size, tokens=tokens_per_pass(ranks.device)
    )
    for indices, weights in batches:
        tick()
        batch = collate(split, indices, weights, device=ranks.device)
        with autocast(ranks.device, bf16):
            rows = model(**{k: batch[k] for k in MODEL_INPUTS if k in batch}).logits
        real = batch["weight"] > 0
        logits_NC[batch["example"][real]] = rows[real].float()
    ranks.sum_(logits_NC)
    model.train(was_training)
    return logits_NC.cpu().numpy()


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """bf16 matrix products where `bf16`; a context without effect otherwise."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
