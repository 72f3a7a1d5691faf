"""What a ticket leaves of every projection of a live model: rows and columns that stay."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from bigtickets.tickets.families import Masks, family_of, has_projection, projection_rows, shapes_of
from bigtickets.tickets.units import check_size, layer_names, matrix, model_family, sizes


@dataclass(frozen=True)
class Cut:
    """Rows and columns of one projection that stay; None where all do."""

    name: str
    rows: Tensor | None
    columns: Tensor | None

    @property
    def empty(self) -> bool:
        """Whether nothing of the weight stays."""
        return any(kept is not None and not len(kept) for kept in (self.rows, self.columns))


def cuts(model: PreTrainedModel, kept: Masks) -> Iterator[Cut]:
    """Every projection that a ticket changes. InputError if the model is of another layout."""
    config = model.config.to_dict()
    family, shapes, names = family_of(config), shapes_of(config), layer_names(model)
    for unit, mask_LN in kept.items():
        rows = [each for each in family.rows(unit) if has_projection(each, config)]
        per_layer = shapes.heads if unit == "heads" else shapes.neurons
        for index in np.flatnonzero(~mask_LN.all(axis=1)):
            for projection in rows:
                name = f"{names[index]}.{projection.path}"
                size = sizes(matrix(model, name))[1]
                check_size(name, size, per_layer * projection_rows(shapes, projection, unit))
                yield Cut(name, _channels(size, projection.parts, mask_LN[index]), None)
            name = f"{names[index]}.{family.columns(unit).path}"
            stay = _channels(sizes(matrix(model, name))[0], 1, mask_LN[index])
            yield Cut(name, stay if unit == "blocks" else None, stay)


def gone(model: PreTrainedModel, kept: Masks) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of attentions that lose all heads, other than what stands in for them keeps.

    Among them what belongs to no head, such as a norm of all heads' queries.
    """
    family = model_family(model)
    stay = (*family.after_heads, family.attention_norm)
    for layer, mask_N in zip(layer_names(model), kept.get("heads", ()), strict=False):
        attention = model.get_submodule(f"{layer}.{family.attention}")
        for name, parameter in attention.named_parameters() if not mask_N.any() else ():
            if name.partition(".")[0] not in stay:
                yield f"{layer}.{family.attention}.{name}", parameter


def _channels(size: int, parts: int, mask_N: NDArray[np.bool_]) -> Tensor:
    """Which of `size` channels stay: equal parts, and in each the channels of every unit."""
    each = size // (parts * len(mask_N))
    return torch.from_numpy(np.flatnonzero(np.tile(np.repeat(mask_N, each), parts)))
