"""Where the units of a live model are."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bigtickets.errors import InputError
from bigtickets.study.spec import Unit
from bigtickets.tickets.families import (
    Shapes,
    family_of,
    shapes_of,
    unit_channels,
    units_per_layer,
)
from bigtickets.tickets.layouts import Family

Matrix = nn.Linear | Conv1D
"""A projection; a Conv1D keeps its weight transposed, inputs first."""


@dataclass(frozen=True)
class UnitLayer:
    """One layer, and the two projections whose inputs the gates multiply."""

    index: int
    layer: nn.Module
    attention_output: Matrix
    ffn_output: Matrix


def model_family(model: PreTrainedModel) -> Family:
    """The table entry of a live model; InputError if there is none."""
    return family_of(model.config.to_dict())


def model_shapes(model: PreTrainedModel) -> Shapes:
    """Sizes of the dense model that `model` is, or was before units were removed."""
    return shapes_of(model.config.to_dict())


def layer_names(model: PreTrainedModel) -> list[str]:
    """Names of the layers' modules inside `model`, in the order of a ticket's layers."""
    names = ["" if model.base_model is model else f"{model.base_model_prefix}."]
    for path in model_family(model).layers:
        lists = [f"{name}{path}" for name in names]
        names = [f"{each}.{child}." for each in lists for child in _children(model, each)]
    return [name.removesuffix(".") for name in names]


def unit_layers(model: PreTrainedModel) -> list[UnitLayer]:
    """The layers of a dense model, first to last; InputError if units are gone already."""
    refuse_pruned(model)
    family, shapes = model_family(model), model_shapes(model)
    found = []
    for index, name in enumerate(layer_names(model)):
        outputs: dict[Unit, Matrix] = {}
        units: tuple[Unit, ...] = ("heads", "neurons")
        for unit in units:
            path = f"{name}.{family.columns(unit).path}"
            outputs[unit] = matrix(model, path)
            expected = units_per_layer(shapes, unit) * unit_channels(shapes, unit)
            check_size(path, sizes(outputs[unit])[0], expected)
        layer = model.get_submodule(name)
        found.append(UnitLayer(index, layer, outputs["heads"], outputs["neurons"]))
    return found


def matrix(model: nn.Module, name: str) -> Matrix:
    """A projection by name; InputError if it is none that can be cut."""
    found = model.get_submodule(name)
    if not isinstance(found, Matrix):
        raise InputError(
            f"{name} is a {type(found).__name__}: only Linear and Conv1D can be scored and cut"
        )
    return found


def sizes(projection: Matrix) -> tuple[int, int]:
    """(inputs, outputs) of a projection, wherever its weights are."""
    if isinstance(projection, Conv1D):
        return projection.nx, projection.nf
    return projection.in_features, projection.out_features


def check_size(name: str, size: int, expected: int) -> None:
    """InputError unless a projection is as large as the table of families says."""
    if size != expected:
        raise InputError(
            f"{name} has {size} channels, its config and the table of families say {expected}; "
            "docs/adding_a_family.md says how to describe another layout"
        )


def refuse_pruned(model: PreTrainedModel) -> None:
    """InputError for a model from which units have been removed: scores and tickets number all."""
    mark = getattr(model.config, "bigtickets", None)
    if mark and any(mark["removed"].values()):
        raise InputError(
            f"{model.config.name_or_path or 'model'}: units have been removed from it already; "
            "score and prune the dense model"
        )


def _children(model: PreTrainedModel, name: str) -> list[str]:
    return [child for child, _ in model.get_submodule(name).named_children()]
