"""Importance of units: the gate gradients of every example, from one backward per batch.

With a gate xi = 1 on a unit, its importance is I = E_x |dL(x)/dxi| (Michel et al. 2019,
arXiv 1905.10650; Liang et al. 2021, arXiv 2105.12002). No gate is in the graph: with `a` the
tensor that the gate would multiply and `g` its gradient, dL(x)/dxi is the sum of a*g over the
example's tokens and the unit's channels.

Where the absolute value is taken (`granularity`), x an example, t a token:
    example       E_x |sum_t a*g|            the paper's formula
    token         E_x sum_t |a*g|            what the paper's code computes
    square        E_x (sum_t a*g)^2
    legacy_batch  E_batch |sum_x sum_t a*g|  depends on the micro-batch; for comparison only
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from bigtickets.errors import InputError
from bigtickets.study.spec import Granularity, Unit
from bigtickets.tickets.families import unit_channels, units_per_layer
from bigtickets.tickets.scores import Scores
from bigtickets.tickets.units import UnitLayer, model_shapes, unit_layers


class ImportancePass:
    """Collects the scores of a dense model's units while it is active.

        with ImportancePass(model) as scoring:
            for batch in batches:
                logits_BC = model(**batch.inputs).logits
                scoring.add(cross_entropy(logits_BC, labels_B, reduction="none"), weight_B)
        scoring.reduce(all_reduce)
        scores = scoring.scores()

    Inside, the model is in evaluation mode and its weights are frozen: no weight gradient is
    computed or kept. On leaving, also by an exception, all is as it was. Forwards may go through
    anything that runs the model's modules. Gradient checkpointing that is on stays in effect.
    `device`: where the activations are; that of the first parameter if not given.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        units: tuple[Unit, ...] = ("heads", "neurons"),
        granularity: Granularity = "example",
        device: torch.device | None = None,
    ) -> None:
        if granularity == "token" and getattr(model.config, "chunk_size_feed_forward", False):
            raise InputError("granularity token needs chunk_size_feed_forward 0 in the config")
        self._model, self._layers = model, unit_layers(model)
        self._units, self._granularity = units, granularity
        shapes = model_shapes(model)
        self._depths = shapes.repeats
        self._channels = {unit: unit_channels(shapes, unit) for unit in units}
        self._sizes = [(2, shapes.layers, units_per_layer(shapes, unit)) for unit in units]
        device = device or next(model.parameters()).device
        # Requires a gradient, so that the graph begins at the first tap; nothing before it does.
        self._start = torch.zeros((), device=device, requires_grad=True)
        numbers = sum(map(math.prod, self._sizes)) + 1
        self._flat = torch.zeros(numbers, dtype=torch.float64, device=device)
        self._batch: dict[tuple[Unit, int], Tensor] = {}
        self._mask_BT: Tensor | None = None
        self._examples = 1

    def __enter__(self) -> "ImportancePass":
        with contextlib.ExitStack() as stack:
            stack.enter_context(_frozen(self._model))
            stack.enter_context(_uncached(self._model))
            stack.enter_context(_checkpointing(self._model, self._layers))
            for layer in self._layers:
                for unit in self._units:
                    stack.callback(self._tap(layer, unit).remove)
            self._undo = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def add(
        self, loss_B: Tensor, weight_B: Tensor, attention_mask_BT: Tensor | None = None
    ) -> None:
        """Run the backward of one batch and add its scores.

        loss_B: each example's loss, not reduced. weight_B: 1, or 0 for an example that only fills
        the batch and never counts. attention_mask_BT: 0 at padding; only `token` reads it.
        """
        real_B = weight_B > 0
        self._mask_BT, self._examples = attention_mask_BT, len(loss_B)
        self._batch = {}  # nothing of an earlier batch, nor of a backward that failed
        torch.where(real_B, loss_B, 0).sum().backward()
        moments, count = self._moments(self._flat)
        for unit in self._units:
            score_LBN = self._scored(self._stacked(unit), real_B).double()
            moments[unit] += torch.stack((score_LBN.sum(1), score_LBN.square().sum(1)))
        count += real_B.any() if self._granularity == "legacy_batch" else real_B.sum()
        self._batch = {}

    def reduce(self, sum_in_place: Callable[[Tensor], object]) -> None:
        """Sum over ranks, once: all sums and the count are one flat float64 tensor."""
        sum_in_place(self._flat)

    def scores(self) -> Scores:
        """What was added (and reduced) so far."""
        moments, count = self._moments(self._flat.cpu().clone())
        return Scores(
            {unit: moments_2LN[0].numpy() for unit, moments_2LN in moments.items()},
            {unit: moments_2LN[1].numpy() for unit, moments_2LN in moments.items()},
            int(count),
            self._granularity,
        )

    def _moments(self, flat: Tensor) -> tuple[dict[Unit, Tensor], Tensor]:
        """Views of `flat`: sums and sums of squares, 2 x L x N per type, and the count."""
        *parts, count = flat.split([math.prod(size) for size in self._sizes] + [1])
        views = [part.view(size) for part, size in zip(parts, self._sizes, strict=True)]
        return dict(zip(self._units, views, strict=True)), count

    def _tap(self, layer: UnitLayer, unit: Unit) -> RemovableHandle:
        """Hook that shows `_collect` what the gates of one layer and type would multiply."""

        def collect(value_BTC: Tensor, grad_BTC: Tensor) -> None:
            self._collect((unit, layer.index), value_BTC, grad_BTC)

        def on_input(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (_Tap.apply(args[0], self._start, collect), *args[1:])

        def on_output(_: nn.Module, __: tuple[Tensor, ...], output_BTH: Tensor) -> Tensor:
            return _Tap.apply(output_BTH, self._start, collect)

        if unit == "blocks":
            return layer.ffn_output.register_forward_hook(on_output)
        linear = layer.attention_output if unit == "heads" else layer.ffn_output
        return linear.register_forward_pre_hook(on_input)

    def _collect(self, key: tuple[Unit, int], value: Tensor, grad: Tensor) -> None:
        """Add one tap's gate gradients of each example, B x N; called during the backward.

        Tensors are (B, T, C), or (B*T, C) where a family flattens its FFN's input. An FFN may see
        an example's tokens in chunks, and depths may share a layer: all belong to one gate.
        """
        if value.dim() == 2:
            value, grad = (each.unflatten(0, (self._examples, -1)) for each in (value, grad))
        channels = self._channels[key[0]]
        if self._granularity != "token":
            signed = _over_channels(_over_tokens(value, grad), channels)
        else:
            signed = _over_channels(_product(value, grad), channels)
            if self._depths == 1:  # else other depths have their part in this token's gradient
                signed = _absolute_over_tokens(signed, self._mask_BT)
        earlier = self._batch.get(key)
        self._batch[key] = signed if earlier is None else earlier + signed

    def _stacked(self, unit: Unit) -> Tensor:
        missing = [layer.index for layer in self._layers if (unit, layer.index) not in self._batch]
        if missing:
            raise RuntimeError(
                f"no gradient reached the {unit} of layers {missing}: the forward must run the "
                "scored model's own modules inside the pass"
            )
        found = [self._batch[unit, layer.index] for layer in self._layers]
        if self._granularity == "token" and self._depths > 1:
            found = [_absolute_over_tokens(token_BTN, self._mask_BT) for token_BTN in found]
        return torch.stack(found)

    def _scored(self, signed_LBN: Tensor, real_B: Tensor) -> Tensor:
        # Not a product with the weight: a filler's gradient may be NaN.
        signed_LBN = signed_LBN.masked_fill(~real_B[:, None], 0)
        if self._granularity == "legacy_batch":
            signed_LBN = signed_LBN.sum(1, keepdim=True)
        return signed_LBN.square() if self._granularity == "square" else signed_LBN.abs()


class _Tap(torch.autograd.Function):
    """The identity; its backward shows `collect` the tensor and its gradient.

    The tensor is saved the way autograd saves any, so that checkpointing recomputes it.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, start: Tensor, collect: Callable) -> Tensor:
        ctx.save_for_backward(value)
        ctx.collect = collect
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, None, None]:
        ctx.collect(ctx.saved_tensors[0], grads[0])
        return (grads[0] if ctx.needs_input_grad[0] else None), None, None


def _product(value: Tensor, grad: Tensor) -> Tensor:
    """value * grad, in float32 at least: narrow types would round what is to be summed."""
    return value.to(torch.promote_types(value.dtype, torch.float32)) * grad


def _over_tokens(value_BTC: Tensor, grad_BTC: Tensor) -> Tensor:
    """Sum of the product over tokens, B x C."""
    # On a CPU example by example, so that the product stays in its cache.
    at_once = 1 if value_BTC.is_cpu else len(value_BTC)
    parts = zip(value_BTC.split(at_once), grad_BTC.split(at_once), strict=True)
    return torch.cat([_product(value, grad).sum(1) for value, grad in parts])


def _over_channels(value: Tensor, channels: int) -> Tensor:
    """Sum over each unit's channels: (..., N x channels) to (..., N)."""
    return value if channels == 1 else value.unflatten(-1, (-1, channels)).sum(-1)


def _absolute_over_tokens(token_BTN: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Sum of absolute values over tokens that are no padding, B x N."""
    if mask_BT is not None:
        token_BTN = token_BTN.masked_fill(mask_BT[..., None] == 0, 0)
    return token_BTN.abs().sum(1)


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no weight gradients, for a while."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def _uncached(model: PreTrainedModel) -> Iterator[None]:
    """No keys and values kept for tokens to come: checkpoints would add them a second time."""
    if not getattr(model.config, "use_cache", False):
        yield
        return
    try:
        model.config.use_cache = False
        yield
    finally:
        model.config.use_cache = True


@contextlib.contextmanager
def _checkpointing(model: PreTrainedModel, layers: list[UnitLayer]) -> Iterator[None]:
    """Keep gradient checkpointing in effect: transformers does it in training mode only.

    The flag is set on the layer itself, whose dropouts have their own. Reentrant checkpoints pass
    gradients only where an input has one, so the graph then begins at the embeddings.
    """
    checkpointed: list[Any] = [
        x.layer for x in layers if getattr(x.layer, "gradient_checkpointing", False)
    ]
    # OPT's dropouts are its layers' own: a number, and no module.
    found = {layer: getattr(layer, "dropout", None) for layer in checkpointed}
    rates = {layer: rate for layer, rate in found.items() if isinstance(rate, float)}
    for layer in checkpointed:
        layer.training = True
    for layer in rates:
        layer.dropout = 0.0
    if not checkpointed:
        yield
        return
    embeddings = model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _, __, output: output.requires_grad_())
    try:
        yield
    finally:
        handle.remove()
        for layer, rate in rates.items():
            layer.dropout = rate
