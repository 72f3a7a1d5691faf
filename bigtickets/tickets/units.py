"""Where the units of a live model are."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from bigtickets.errors import InputError
from bigtickets.tickets.families import Family, Shapes, family_of, shapes_of


@dataclass(frozen=True)
class UnitLayer:
    """One layer, and the two Linears whose inputs the gates multiply."""

    index: int
    layer: nn.Module
    attention_output: nn.Linear
    ffn_output: nn.Linear


def model_family(model: PreTrainedModel) -> Family:
    """The table entry of a live model; InputError if there is none."""
    return family_of({"model_type": model.config.model_type})


def model_shapes(model: PreTrainedModel) -> Shapes:
    """Sizes of the dense model that `model` is, or was before units were removed."""
    return shapes_of(model.config.to_dict())


def layer_name(model: PreTrainedModel, index: int) -> str:
    """Name of a layer's module inside `model`."""
    below = "" if model.base_model is model else f"{model.base_model_prefix}."
    return f"{below}{model_family(model).layers}.{index}"


def unit_layers(model: PreTrainedModel) -> list[UnitLayer]:
    """The layers of a dense model, first to last; InputError if units are gone already."""
    refuse_pruned(model)
    family, shapes = model_family(model), model_shapes(model)
    found = []
    for index in range(shapes.layers):
        layer = model.get_submodule(layer_name(model, index))
        attention_output = layer.get_submodule(family.head_columns)
        ffn_output = layer.get_submodule(family.neuron_columns)
        assert isinstance(attention_output, nn.Linear)
        assert isinstance(ffn_output, nn.Linear)
        found.append(UnitLayer(index, layer, attention_output, ffn_output))
    return found


def refuse_pruned(model: PreTrainedModel) -> None:
    """InputError for a model from which units have been removed: scores and tickets number all."""
    mark = getattr(model.config, "bigtickets", None)
    if mark and any(mark["removed"].values()):
        raise InputError(
            f"{model.config.name_or_path or 'model'}: units have been removed from it already; "
            "score and prune the dense model"
        )
