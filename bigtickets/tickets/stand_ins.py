"""What stands in a pruned model where nothing is left; no parameter of size zero."""

import inspect
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class BiasOnly(nn.Module):
    """A projection without inputs: what is left is its bias, or zeros where that is gone too."""

    def __init__(self, features: int, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.features = features
        self.bias = bias

    def forward(self, value: Tensor) -> Tensor:
        # A product over no inputs: zeros in the type that a projection gives, and what comes
        # before it has gradients of 0, as beside a masked one, and not none.
        return functional.linear(value[..., :0], value.new_empty(self.features, 0), self.bias)


class NoChannels(nn.Module):
    """A projection without outputs."""

    def forward(self, value: Tensor) -> Tensor:
        return value[..., :0]


class NoHeads(nn.Module):
    """Attention without heads: what a family does inside it after the heads, with no context.

    That is nothing (BERT), an output projection without inputs (DistilBERT), and what comes after
    it (GPT-2), to a norm of the sum with the input (ALBERT).
    """

    def __init__(self, attention: nn.Module, tail: tuple[str, ...], norm: str) -> None:
        super().__init__()
        self._tail, self._norm = tail, norm
        for name in (*tail, *((norm,) if norm else ())):
            self.add_module(name, attention.get_submodule(name))

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        output = hidden_states
        for name in self._tail:
            output = self.get_submodule(name)(output)
        if self._norm:
            output = self.get_submodule(self._norm)(hidden_states + output)
        return output, None


def only_heads(
    attention: nn.Module, args: Any, kwargs: Any, *, argument: str, heads: list[int]
) -> tuple[Any, Any]:
    """Forward pre-hook: of an argument that all layers share, only the `heads` that stay."""
    bound = inspect.signature(attention.forward).bind(*args, **kwargs)
    bound.arguments[argument] = bound.arguments[argument][:, heads]
    return bound.args, bound.kwargs
