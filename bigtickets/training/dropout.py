"""Dropout whose masks depend on (seed, step, module, example, position, channel) and nothing else.

torch's dropout draws from a stream, so the mask of an example depends on its place in the batch,
on padding and on the number of ranks. Here each element's coin is a hash of where it stands: the
same trial gives the same masks on 1 rank or 512, at any micro-batch, after any restart, and at
every pruning ratio (hidden channels are never removed), which pairs the trials.
"""

import zlib

import numpy as np
import torch
from torch import Tensor, nn

# "lowbias32", an integer mixer by C. Wellons; the second is 0x846CA68B as a signed number.
MULTIPLIERS = (0x7FEB352D, 0x846CA68B - 2**32)
# Modules by the end of their name that get no dropout: DeBERTa's on a table of positions that all
# examples share, and ModernBERT's on neurons, which have other places when some are removed.
PASSED_BY = ("pos_dropout", "mlp.drop")
# Rates that families keep as numbers and draw from torch's stream with.
NUMBERS = ("dropout", "attention_dropout", "layerdrop")


class MaskKey:
    """What all dropout modules of one model share: the current step and examples."""

    def __init__(self, seed: int) -> None:
        self.seed, self.step, self.example_B = seed, 0, torch.zeros(0, dtype=torch.int64)

    def set(self, step: int, example_B: Tensor) -> None:
        """Say what goes through the model next. `example_B`: index of each example in its split."""
        self.step, self.example_B = step, example_B


class KeyedDropout(nn.Module):
    """Inverted dropout on (B, T, H) or (B, H) with hashed masks; passes 4-D attention by."""

    # Fused attention reads `p` off the module it was given; it gets no dropout (see TrainingSpec).
    p = 0.0

    def __init__(self, rate: float, module_index: int, key: MaskKey) -> None:
        super().__init__()
        self.rate, self.module_index, self.key = rate, module_index, key

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels with probability `rate` while training."""
        if not self.training or self.rate == 0 or x.dim() not in (2, 3):
            return x
        keep = self._keep(x)
        return x * keep.to(x.dtype).mul_(1 / (1 - self.rate))

    def _keep(self, x: Tensor) -> Tensor:
        x_BTH = x if x.dim() == 3 else x.unsqueeze(1)
        example_B = self.key.example_B.to(x.device)
        stream = _scramble(self.key.seed, self.key.step, self.module_index)
        positions_T = torch.arange(x_BTH.shape[1], device=x.device)
        # int64 holds the products; only the low 32 bits go on.
        row_BT = _mix((example_B[:, None] * 0x9E3779B1 + positions_T * 0x85EBCA6B + stream).int())
        row_BT = _mix(row_BT + stream)
        column_H = _mix(torch.arange(x.shape[-1], device=x.device, dtype=torch.int32) * 0x5BD1E995)
        coin = _mix(row_BT.unsqueeze(-1) ^ column_H)
        keep = coin >= int(self.rate * 2**32) - 2**31
        return keep if x.dim() == 3 else keep.squeeze(1)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"rate={self.rate}"


def install_dropout(model: nn.Module, rate: float, key: MaskKey) -> None:
    """Replace every nn.Dropout of `model`; each is known by its name, whatever else was removed.

    A module that a family runs at several depths (ALBERT) has the same mask at each. Dropout that
    is no module (OPT's, and that of attention probabilities) is turned off.
    """
    for module in model.modules():
        for number in NUMBERS:
            if isinstance(getattr(module, number, None), float):
                setattr(module, number, 0.0)
    dropouts = [n for n, m in model.named_modules() if isinstance(m, nn.Dropout | KeyedDropout)]
    for name in dropouts:
        parent, _, child = name.rpartition(".")
        index = zlib.crc32(name.encode())
        own = 0.0 if name.endswith(PASSED_BY) else rate
        setattr(model.get_submodule(parent), child, KeyedDropout(own, index, key))


def _mix(z: Tensor) -> Tensor:
    """A bijection of int32 whose every output bit depends on every input bit; not in place."""
    z = z ^ ((z >> 16) & 0xFFFF)
    z.mul_(MULTIPLIERS[0])
    z.bitwise_xor_((z >> 15) & 0x1FFFF)
    z.mul_(MULTIPLIERS[1])
    return z.bitwise_xor_((z >> 16) & 0xFFFF)


def _scramble(*numbers: int) -> int:
    """A 31-bit number that stands for the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0]) >> 1
