"""What stands in a pruned model where nothing is left; no parameter of size zero."""

from torch import Tensor, nn


class BiasOnly(nn.Module):
    """A projection without inputs: what is left is its bias, or zeros where that is gone too."""

    def __init__(self, features: int, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.features = features
        self.bias = bias

    def forward(self, value: Tensor) -> Tensor:
        zeros = value.new_zeros((*value.shape[:-1], self.features))
        return zeros if self.bias is None else zeros + self.bias


class NoChannels(nn.Module):
    """A projection without outputs."""

    def forward(self, value: Tensor) -> Tensor:
        return value[..., :0]


class NoHeads(nn.Module):
    """Attention without heads; holds the output projection where a family has it inside."""

    def forward(self, hidden: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        for projection in self.children():
            hidden = projection(hidden)
        return hidden, None
