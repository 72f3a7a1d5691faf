"""Evaluation that counts every example once, on any number of ranks."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bigtickets.training.batches import collate, evaluation_batches
from bigtickets.training.hardware import tokens_per_pass
from bigtickets.training.ranks import Ranks
from bigtickets.training.splits import Split
from bigtickets.training.watch import paced


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
    with paced() as alive:
        for indices, weights in batches:
            alive()
            tick()
            batch = collate(split, indices, weights, device=ranks.device)
            with autocast(ranks.device, bf16):
                rows = model(**model_inputs(model, batch)).logits
            real = batch["weight"] > 0
            logits_NC[batch["example"][real]] = rows[real].float()
    ranks.sum_(logits_NC)
    model.train(was_training)
    return logits_NC.cpu().numpy()


def model_inputs(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the forward takes of a batch: segments only where the model tells some apart.

    GPT-2 would add the embedding of token 0 for segment 0, others would fail.
    """
    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0) > 1 and "token_type_ids" in batch:
        names.append("token_type_ids")
    return {name: batch[name] for name in names}


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """bf16 matrix products where `bf16`; a context without effect otherwise."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
