"""What the table of families says about one family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bigtickets.study.spec import Unit
from bigtickets.tickets.shapes import Shapes

Config = Mapping[str, Any]
"""The content of a `config.json`."""


@dataclass(frozen=True)
class Flag:
    """A yes or no that a config key decides."""

    key: str
    default: bool
    """Where the config does not have the key."""


@dataclass(frozen=True)
class Projection:
    """A Linear, or a Conv1D with its weights transposed, whose channels belong to units."""

    path: str
    """Its module, relative to one layer."""
    bias: bool | Flag = True
    parts: int = 1
    """Equal parts, one after another, each with rows of every unit: 3 for query|key|value."""
    per_group: bool = False
    """Key or value: the rows of one head for each key-value group, of however many queries."""
    of_positions: Callable[[Config], bool] | None = None
    """It multiplies a table of relative positions; and whether a config has it at all."""


@dataclass(frozen=True)
class Family:
    """Where the units of one model family are. Module paths are relative to one layer."""

    layers: tuple[str, ...]
    """The list of layers, relative to the base model; a list inside each of its entries, and so
    on, where lists are nested."""
    attention: str
    """The module that computes attention; its forward returns (output, attention weights)."""
    head_rows: tuple[Projection, ...]
    """Query, key, value: their rows belong to heads."""
    head_columns: Projection
    """The attention output projection: its columns belong to heads."""
    neuron_rows: tuple[Projection, ...]
    """The up projection, and the gate where there is one: their rows are neurons."""
    neuron_columns: Projection
    """The down projection: its columns are neurons."""
    other_weights: Callable[[Shapes, Config], int]
    """Parameters outside the projections above and the task head: embeddings, norms."""
    task_head: Callable[[Shapes, Config], tuple[int, int]]
    """Parameters of the sequence classifier's head: before its last layer, and per output."""
    head_counts: tuple[str, ...] = ()
    """Attributes of `attention` that hold the number of heads."""
    head_widths: tuple[str, ...] = ()
    """Attributes of `attention` that hold heads x head size."""
    head_arguments: tuple[str, ...] = ()
    """Arguments of `attention` whose dimension 1 is heads, and which all layers share."""
    head_norms: int = 0
    """Norms inside `attention` that all heads share, one head's size each."""
    attention_tail: tuple[str, ...] = ()
    """Modules that `attention` applies after its output projection, if that lies inside it."""
    attention_norm: str = ""
    """The LayerNorm that `attention` applies to its input plus its output, if it does."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Config keys of sizes, where they are not the usual ones; "" for a size it doesn't have."""
    optional: tuple[str, ...] = ()
    """Sizes that follow from others where a config has no such key, or null."""
    relative: Callable[[Config], int] | None = None
    """Relative positions that a head multiplies every token by, over both directions."""

    def rows(self, unit: Unit) -> tuple[Projection, ...]:
        """Whose rows belong to units of a type."""
        return self.head_rows if unit == "heads" else self.neuron_rows

    def columns(self, unit: Unit) -> Projection:
        """Whose columns belong to units of a type."""
        return self.head_columns if unit == "heads" else self.neuron_columns

    @property
    def after_heads(self) -> tuple[str, ...]:
        """Modules inside `attention` that are applied to the heads' output, one after another."""
        inside = self.head_columns.path.removeprefix(f"{self.attention}.")
        return ((inside,) if inside != self.head_columns.path else ()) + self.attention_tail


def holds(flag: bool | Flag, config: Config) -> bool:
    """What a flag says about a config."""
    if isinstance(flag, bool):
        return flag
    value = config.get(flag.key)
    return flag.default if value is None else bool(value)
