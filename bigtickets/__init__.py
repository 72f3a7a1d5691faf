"""Find super tickets in pre-trained transformers and measure their transition."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_pruned"]

if TYPE_CHECKING:
    from bigtickets.tickets.surgery import load_pruned


def __getattr__(name: str) -> Any:
    # Loaded on first use: `bigtickets plan` and `--help` need no torch.
    if name == "load_pruned":
        from bigtickets.tickets.surgery import load_pruned

        return load_pruned
    raise AttributeError(f"module 'bigtickets' has no attribute {name!r}")
