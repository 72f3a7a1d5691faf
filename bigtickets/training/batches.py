"""Which examples go through the model when, and their tensors.

Batches of training depend on seed and step alone: not on ranks, micro-batches or what was trained
before. So a trial resumes at any step, and a seed sees the same batches at every pruning ratio.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from bigtickets.training.splits import Split

MicroBatch = tuple[np.ndarray, np.ndarray]
"""Indices (int64) and weights (float32): 1 for an example, 0 for a filler that never counts."""

POOL_BATCHES = 64
"""Examples of about equal length are batched together out of that many batches."""


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """The global batches of one training, each a pure function of its step."""

    lengths: np.ndarray
    """Tokens of every example of the split (N,)."""
    examples: np.ndarray
    """Indices of the examples that are trained on (M,)."""
    batch_size: int
    """Over all ranks."""
    steps: int
    seed: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.batch_at(step) for step in range(self.steps))

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every example is seen once."""
        return steps_per_epoch(len(self.examples), self.batch_size)

    def epoch_of(self, step: int) -> float:
        """Epochs that are over before `step`."""
        return step / self.steps_per_epoch

    def batch_at(self, step: int) -> np.ndarray:
        """Indices of the examples of one step (int64), shortest first."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of {self.steps}")
        epoch, place = divmod(step, self.steps_per_epoch)
        return _epoch_batches(self, epoch)[place]


# Steps come in order, so the current epoch is all that is asked for.
@functools.lru_cache(maxsize=2)
def _epoch_batches(batches: TrainingBatches, epoch: int) -> list[np.ndarray]:
    order = batches.examples[_shuffled(len(batches.examples), batches.seed, epoch, 0)]
    size = batches.batch_size
    whole = len(order) // size * size
    cut = [
        batch
        for start in range(0, whole, size * POOL_BATCHES)
        for batch in _by_length(order[start : min(start + size * POOL_BATCHES, whole)], batches)
    ]
    epoch_batches = [cut[i] for i in _shuffled(len(cut), batches.seed, epoch, 1)]
    # What is left over is as random as the rest: sorted with a pool it would be the longest ones.
    return epoch_batches + (_by_length(order[whole:], batches) if whole < len(order) else [])


def _by_length(pool: np.ndarray, batches: TrainingBatches) -> list[np.ndarray]:
    pool = pool[np.argsort(batches.lengths[pool], kind="stable")]
    return [pool[i : i + batches.batch_size] for i in range(0, len(pool), batches.batch_size)]


def _shuffled(count: int, *key: int) -> np.ndarray:
    """A permutation that only `key` decides.

    By raw bits, whose stream numpy guarantees; `Generator.permutation` may change between releases.
    """
    bits = np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(bits, kind="stable")


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Steps in which `examples` are seen once; the last batch may be smaller."""
    return -(-examples // batch_size)


def training_batches(
    lengths: np.ndarray,
    batch_size: int,
    steps: int,
    seed: int,
    examples: np.ndarray | None = None,
) -> TrainingBatches:
    """The batches of `steps` optimizer steps over a split whose examples have `lengths` tokens.

    `examples`: sorted indices of those that are trained on, from `subset`; None takes all.
    """
    chosen = np.arange(len(lengths)) if examples is None else examples
    if not len(chosen):
        raise ValueError("no examples to train on")
    return TrainingBatches(lengths, chosen, batch_size, steps, seed)


def micro_batches(
    indices: np.ndarray, rank: int, world_size: int, micro_batch: int
) -> list[MicroBatch]:
    """This rank's part of a global batch, in pieces of at most `micro_batch` examples.

    Every rank gets the same number of pieces, or collectives would hang: a piece without an
    example holds one filler. Over all ranks every example comes once.
    """
    pieces = -(-len(indices) // (world_size * micro_batch))
    # Every world_size-th: the batch is sorted by length, so all ranks get alike shares.
    own = indices[rank::world_size]
    return [_filled(piece, indices[:1]) for piece in np.array_split(own, pieces)]


def evaluation_batches(
    lengths: np.ndarray,
    rank: int,
    world_size: int,
    *,
    micro_batch: int | None = None,
    tokens: int | None = None,
    examples: np.ndarray | None = None,
) -> list[MicroBatch]:
    """This rank's batches of a pass over a split, longest first; as many on every rank.

    A batch has `micro_batch` examples or as many as fit into `tokens` padded tokens (one at
    least). Over all ranks every example comes once. `examples`: a part of the split.
    """
    if (micro_batch is None) == (tokens is None):
        raise TypeError("give either micro_batch or tokens")
    chosen = np.arange(len(lengths)) if examples is None else np.asarray(examples)
    order = chosen[np.argsort(-lengths[chosen], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        # The first is the longest: all others are padded to it.
        size = micro_batch or max(1, (tokens or 0) // int(lengths[order[start]]))
        together = order[start : start + size * world_size]
        batches.append(_filled(together[rank::world_size], together[-1:]))
        start += size * world_size
    return batches


def _filled(piece: np.ndarray, filler: np.ndarray) -> MicroBatch:
    """A piece with weights; in place of an empty one `filler`, the shortest example there is."""
    if len(piece):
        return piece, np.ones(len(piece), np.float32)
    return filler, np.zeros(1, np.float32)


def collate(
    split: Split,
    indices: np.ndarray,
    weights: np.ndarray | None = None,
    device: torch.device | str | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors of some examples, padded to the longest of them.

    `input_ids`, `attention_mask`, `token_type_ids` (if the split has them): (B, T) int64;
    `labels` (B,) int64 or float32; `weight` (B,) float32; `example` (B,) int64: the indices.
    Put together where the split lies, then moved to `device`.
    """
    place = split.input_ids.device
    example_B = torch.as_tensor(indices, dtype=torch.int64).to(place)
    longest = int(split.lengths[indices].max())
    token_BT, mask_BT = _places(split, example_B, longest)
    batch = {
        "input_ids": split.input_ids[token_BT].long().masked_fill_(~mask_BT, split.pad_id),
        "attention_mask": mask_BT.long(),
        "labels": split.labels[example_B],
        "weight": _weights(weights, len(indices)).to(place),
        "example": example_B,
    }
    if split.token_type_ids is not None:
        batch["token_type_ids"] = split.token_type_ids[token_BT].long().masked_fill_(~mask_BT, 0)
    return batch if device is None else {k: v.to(device) for k, v in batch.items()}


def _places(split: Split, example_B: torch.Tensor, longest: int) -> tuple[torch.Tensor, ...]:
    """(where each token stands in the flat tensors, whether it is one and not padding): (B, T)."""
    start_B, end_B = split.offsets[example_B], split.offsets[example_B + 1]
    place_BT = start_B[:, None] + torch.arange(longest, device=start_B.device)
    mask_BT = place_BT < end_B[:, None]
    # Padding after the split's last token would point beyond the end.
    return torch.where(mask_BT, place_BT, start_B[:, None]), mask_BT


def _weights(weights: np.ndarray | None, count: int) -> torch.Tensor:
    if weights is None:
        return torch.ones(count)
    return torch.as_tensor(weights, dtype=torch.float32)
