"""Physical removal of units: smaller projections, and what stands where nothing is left.

Removing a unit equals multiplying it by 0: a sub-layer that loses all heads or neurons leaves its
output bias behind, a removed FFN block leaves nothing. No parameter of size zero stays: ZeRO-3
cannot hold one.

Structure and weights are apart. `shrink` needs nothing but shapes, so a model may be made small on
the meta device and filled from a file; `slice_weights` works on a state dict.
"""

import contextlib
import copy
import functools
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bigtickets import files
from bigtickets.errors import DamagedError, InputError
from bigtickets.tickets.cuts import Cut, cuts, gone
from bigtickets.tickets.families import Masks, shapes_of, unit_channels
from bigtickets.tickets.stand_ins import BiasOnly, NoChannels, NoHeads, only_heads
from bigtickets.tickets.ticket import Ticket, check_kept, structure
from bigtickets.tickets.units import (
    Matrix,
    layer_names,
    matrix,
    model_family,
    model_shapes,
    refuse_pruned,
    sizes,
    unit_layers,
)

_WEIGHTS = "model.safetensors"

Selection = tuple[Tensor | None, ...]
"""Indices that stay along each dimension of a parameter; None where all do."""


def remove_units(model: PreTrainedModel, kept: Masks) -> PreTrainedModel:
    """Remove from a dense model, in place, the units that `kept` doesn't keep.

    InputError if units are gone already, or if the masks are those of another model.
    """
    _check(model, kept)
    weights = slice_weights(model, model.state_dict(), kept)
    shrink(model, kept)
    model.load_state_dict(weights)
    return model


def shrink(model: PreTrainedModel, kept: Masks) -> None:
    """Give a dense model the structure that a ticket leaves; the changed weights are empty memory.

    Works on any device, meta included. `config.bigtickets` then says what was removed.
    """
    _check(model, kept)
    for cut in list(cuts(model, kept)):
        projection = matrix(model, cut.name)
        if cut.empty:
            model.set_submodule(cut.name, _stand_in(projection, cut))
        else:
            _resize(projection, cut)
    for name, mask_N in zip(layer_names(model), kept.get("heads", ()), strict=False):
        _set_heads(model, name, mask_N)
    model.config.bigtickets = structure(kept)


def slice_weights(
    model: PreTrainedModel, state: Mapping[str, Tensor], kept: Masks
) -> dict[str, Tensor]:
    """The state dict of the dense `model` as that of the model that `shrink` makes of it.

    Of `model` only config and names are read. What is not cut is passed on, not copied.
    """
    sliced = dict(state)
    for name, dims in selections(model, kept).items():
        if name in sliced:
            tensor = select(sliced.pop(name), dims)
            sliced |= {name: tensor} if tensor.numel() else {}
    return sliced


def selections(model: PreTrainedModel, kept: Masks) -> dict[str, Selection]:
    """What a ticket leaves of each parameter that it cuts, by name; other parameters stay whole.

    One entry per dimension: the sorted indices that stay, or None where all do. A parameter with
    an empty entry is not in the model that `shrink` makes. Of `model` only config and names are
    read; it may be on the meta device.
    """
    found: dict[str, Selection] = {}
    for cut in cuts(model, kept):
        dims = (cut.rows, cut.columns)
        projection = matrix(model, cut.name)
        found[f"{cut.name}.weight"] = dims[::-1] if isinstance(projection, Conv1D) else dims
        if projection.bias is not None and cut.rows is not None:
            found[f"{cut.name}.bias"] = (cut.rows,)
    for name, parameter in gone(model, kept):
        found.setdefault(name, (torch.arange(0), *(None,) * (parameter.dim() - 1)))
    return found


def select(tensor: Tensor, dims: Selection) -> Tensor:
    """The part of a tensor that a selection leaves; a copy."""
    for dim, stay in enumerate(dims):
        if stay is not None:
            tensor = tensor.index_select(dim, stay.to(tensor.device))
    return tensor


@contextlib.contextmanager
def masked(model: PreTrainedModel, kept: Masks) -> Iterator[None]:
    """Multiply the units of a dense model by 1 or 0, for a while: what `remove_units` equals."""
    _check(model, kept)
    shapes = model_shapes(model)
    with contextlib.ExitStack() as stack:
        for layer in unit_layers(model):
            for unit, mask_LN in kept.items():
                channels_C = np.repeat(mask_LN[layer.index], unit_channels(shapes, unit))
                gates_C = torch.tensor(channels_C)
                linear = layer.attention_output if unit == "heads" else layer.ffn_output
                stack.callback(_multiply(linear, gates_C, output=unit == "blocks").remove)
        yield


def save_pruned(
    model: PreTrainedModel, tokenizer: Any, directory: str | Path, ticket: Ticket
) -> None:
    """Write a pruned model (and its tokenizer, unless None) as a folder for `load_pruned`.

    Weights in `model.safetensors`; the ticket is the key `bigtickets` of `config.json`. The folder
    appears whole or not at all; InputError if there is something in it already.
    """
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise InputError(f"{directory}: not empty; pass a new folder for the pruned model")
    if getattr(model.config, "bigtickets", {}).get("kept") != structure(ticket.kept)["kept"]:
        raise ValueError("this ticket is not the one that the model was pruned by")
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], model.dtype
    config.bigtickets = ticket.to_json()
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        config.save_pretrained(temporary)
        safetensors.torch.save_model(model, str(temporary / _WEIGHTS), {"format": "pt"})
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        for path in (*temporary.iterdir(), temporary):
            files.fsync(path)
        temporary.replace(directory)
        files.fsync(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_pruned(directory: str | Path) -> PreTrainedModel:
    """Load a pruned model, on the CPU and in evaluation mode.

    Structure first: the dense model of `config.json`, shrunk by its ticket; then every weight must
    be there in exactly its size. InputError if the folder holds no pruned model, DamagedError if
    its files contradict one another.
    """
    directory = Path(directory)
    saved = _saved_ticket(directory / "config.json")
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    config.bigtickets = None  # dense, to begin with
    # The initial weights are all replaced: drawing them is to move nobody's random numbers.
    with torch.random.fork_rng(devices=[]):
        model = _architecture(config, directory)(config)
    for parameter in model.parameters():  # not buffers: rotary frequencies stay in float32
        parameter.data = parameter.data.to(config.dtype)
    shrink(model, saved.kept)
    model.config.bigtickets = saved.to_json()
    try:
        safetensors.torch.load_model(model, directory / _WEIGHTS, strict=True)
    except FileNotFoundError:
        raise InputError(f"{directory / _WEIGHTS}: no such file") from None
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise DamagedError(
            f"{directory / _WEIGHTS}: not the weights of its config.json "
            f"({str(error).splitlines()[0]}); save the model again"
        ) from None
    return model.eval()


def _saved_ticket(path: Path) -> Ticket:
    content = files.read_json(path)
    if not content.get("bigtickets"):
        raise InputError(f"{path}: no key bigtickets; a dense model loads with from_pretrained")
    ticket = Ticket.from_json(content["bigtickets"], str(path))
    check_kept(ticket.kept, shapes_of(content))
    return ticket


def _architecture(config: PreTrainedConfig, directory: Path) -> type[PreTrainedModel]:
    name = (config.architectures or [""])[0]
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise InputError(f"{directory}/config.json: architectures {name!r} is not of transformers")
    return found


def _resize(projection: Matrix, cut: Cut) -> None:
    """Give a projection empty weights of the size that the cut leaves."""
    inputs, outputs = sizes(projection)
    inputs = inputs if cut.columns is None else len(cut.columns)
    outputs = outputs if cut.rows is None else len(cut.rows)
    if projection.bias is not None and cut.rows is not None:
        projection.bias = _empty_like(projection.bias, outputs)
    if isinstance(projection, Conv1D):
        projection.nx, projection.nf = inputs, outputs
        projection.weight = _empty_like(projection.weight, inputs, outputs)
    else:
        projection.in_features, projection.out_features = inputs, outputs
        projection.weight = _empty_like(projection.weight, outputs, inputs)


def _empty_like(parameter: Tensor, *shape: int) -> nn.Parameter:
    return nn.Parameter(parameter.new_empty(shape), requires_grad=parameter.requires_grad)


def _stand_in(projection: Matrix, cut: Cut) -> nn.Module:
    if cut.columns is None:
        return NoChannels()
    return BiasOnly(sizes(projection)[1], projection.bias if cut.rows is None else None)


def _set_heads(model: PreTrainedModel, layer: str, mask_N: NDArray[np.bool_]) -> None:
    """Tell a layer's attention which heads it has, or replace it by what has none."""
    family, name = model_family(model), f"{layer}.{model_family(model).attention}"
    attention, heads = model.get_submodule(name), np.flatnonzero(mask_N).tolist()
    if not heads:
        stand_in = NoHeads(attention, family.after_heads, family.attention_norm)
        model.set_submodule(name, stand_in)
        return
    for attribute in family.head_counts:
        setattr(attention, attribute, len(heads))
    for attribute in family.head_widths:
        setattr(attention, attribute, len(heads) * model_shapes(model).head_dim)
    if len(heads) < len(mask_N):
        for argument in family.head_arguments:
            hook = functools.partial(only_heads, argument=argument, heads=heads)
            attention.register_forward_pre_hook(hook, with_kwargs=True)


def _multiply(linear: Matrix, gates_C: Tensor, output: bool) -> RemovableHandle:
    if output:
        return linear.register_forward_hook(lambda _, __, value: value * gates_C.to(value))
    return linear.register_forward_pre_hook(lambda _, args: (args[0] * gates_C.to(args[0]),))


def _check(model: PreTrainedModel, kept: Masks) -> None:
    refuse_pruned(model)
    check_kept(kept, model_shapes(model))
