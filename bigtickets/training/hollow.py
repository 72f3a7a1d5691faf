"""Models whose weights are nowhere yet, and the values that will fill them, one after the other.

A model that is sharded over the ranks is never whole on any of them: it is built without memory,
its units are removed, and then each weight is read, cut while it is read, and shared out.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils.hub import cached_file

from bigtickets.errors import DamagedError
from bigtickets.files import read_json
from bigtickets.study.spec import ModelSpec
from bigtickets.training.models import (
    Values,
    check_loaded,
    classifier_config,
    fresh_values,
    kernel,
    load_error,
    load_model,
    shape_error,
)
from bigtickets.training.tensor_files import Place, Selection, places_in, read_tensor, select

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Source:
    """Where the weights of a dense model are."""

    places: dict[str, Place] = field(default_factory=dict)
    """By parameter, in files."""
    held: dict[str, Tensor] = field(default_factory=dict)
    """Those that are in memory: the fresh task head."""

    def values(self, names: list[str], dims: Mapping[str, Selection]) -> Values:
        """The parameters `names` (sorted), each cut by its entry in `dims`."""
        for name in names:
            chosen = dims.get(name, ())
            if name in self.held:
                yield name, select(self.held[name], chosen)
            else:
                yield name, read_tensor(self.places[name], chosen)


def hollow_model(model: ModelSpec, num_outputs: int) -> PreTrainedModel:
    """The network of `load_model` with its parameters on the meta device; buffers are real."""
    config = classifier_config(model, num_outputs)
    with _parameters_on_meta():
        network = AutoModelForSequenceClassification.from_config(
            config,
            dtype=torch.float32,
            attn_implementation=kernel(model.execution.attention),
            trust_remote_code=model.trust_remote_code,
        )
    return network.eval()


def names_of(network: nn.Module) -> list[str]:
    """The parameters in the order in which `Values` come."""
    return sorted(name for name, _ in network.named_parameters())


def pretrained_source(
    model: ModelSpec, network: PreTrainedModel, num_outputs: int, seed: int
) -> Source:
    """Where the weights are that `load_model` would give the dense `network`; for one rank.

    Where files and network cannot be matched by name alone, the model is loaded whole, here.
    """
    try:
        places = _places(network, _weight_files(model))
    except _NoPlaces as reason:
        print(f"{model.name}: the first process reads all weights at once: {reason}", flush=True)
        whole = load_model(model, num_outputs, seed)
        return Source(held={name: p.detach() for name, p in whole.named_parameters()})
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    missing = shapes.keys() - places.keys()
    check_loaded(model, network, missing)
    held = dict(fresh_values(network, missing, seed))
    for name in shapes.keys() - held.keys():
        _check_shape(places[name], shapes[name])
    return Source(places, held)


def stored_source(path: Path) -> Source:
    """Where the weights are that training left in `path`, under the names of the parameters."""
    return Source(places_in(path))


def fill(network: nn.Module, values: Values) -> None:
    """Give a hollow network its weights, in this process's memory."""
    owners = parameter_owners(network)
    for name, value in values:
        replace_parameter(owners[name], nn.Parameter(value))


def parameter_owners(network: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """By name: the modules and attributes that share the parameter."""
    named = dict(network.named_parameters())
    name_of = {id(parameter): name for name, parameter in named.items()}
    owners: dict[str, list[tuple[nn.Module, str]]] = {name: [] for name in named}
    for module in network.modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            owners[name_of[id(parameter)]].append((module, leaf))
    return owners


def replace_parameter(owners: list[tuple[nn.Module, str]], parameter: nn.Parameter) -> None:
    """Put a parameter in the place of another, wherever that is shared."""
    for module, leaf in owners:
        parameter.requires_grad_(getattr(module, leaf).requires_grad)
        setattr(module, leaf, parameter)


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Modules made inside have parameters without memory; their buffers have contents."""
    original = nn.Module.register_parameter

    def register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None:
            param = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)
        original(module, name, param)

    nn.Module.register_parameter = register  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


class _NoPlaces(Exception):
    """Parameters are not tensors of the files under other names."""


def _weight_files(model: ModelSpec) -> list[Path]:
    """The safetensors files of a model: one, or the shards that an index lists."""
    if (single := _find(model, SINGLE)) is not None:
        return [single]
    index = _find(model, INDEX)
    if index is None:
        raise _NoPlaces("there are no safetensors files")
    shards = {name: _find(model, name) for name in set(read_json(index)["weight_map"].values())}
    for name, path in shards.items():
        if path is None:
            raise DamagedError(f"{index}: {name}, which it lists, is missing; fetch it again")
    return sorted(path for path in shards.values() if path is not None)


def _find(model: ModelSpec, name: str) -> Path | None:
    try:
        found = cached_file(
            model.path,
            name,
            revision=model.revision,
            _raise_exceptions_for_missing_entries=False,
        )
    except (OSError, ValueError) as error:
        raise load_error(model, error) from error
    return Path(found) if found else None


def _places(network: PreTrainedModel, files: list[Path]) -> dict[str, Place]:
    """By parameter: where `from_pretrained` would take it from.

    By transformers' own renaming: legacy names, and the base model's prefix put on or taken off.
    """
    rename = _renaming(network)
    places = {}
    for path in files:
        for key, place in sorted(places_in(path).items()):
            name, converted = rename(key)
            if converted:
                raise _NoPlaces(f"{key} is stored in another form")
            if name is not None:
                places[name] = place
    return places


def _renaming(network: PreTrainedModel) -> Any:
    """key of a file -> (parameter or None, whether more than the name changes)."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            rename_source_key,
        )

        rules = get_model_conversion_mapping(network)
    except (ImportError, AttributeError, TypeError) as error:
        raise _NoPlaces(f"this release of transformers renames otherwise: {error}") from None
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    state, prefix = network.state_dict(), network.base_model_prefix

    def rename(key: str) -> tuple[str | None, bool]:
        name, pattern = rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:
            name, pattern = rename_source_key(key, [], [], prefix, state)
        return (name, pattern is not None) if name in state else (None, False)

    return rename


def _check_shape(place: Place, shape: tuple[int, ...]) -> None:
    if place.shape != shape:
        raise shape_error(f"{place.path}: {place.key}", place.shape, shape)
