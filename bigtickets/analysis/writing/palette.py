"""Colours of figures and page, for light and dark: safe for the colour-blind (Okabe and Ito).

Figures are drawn in the light colours; each of them has one meaning, so that an SVG inside the
page can take the reader's theme by exchanging them (`bigtickets.analysis.writing.svg`).
"""

from typing import Any

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1c2024",
    "muted": "#5f676f",
    "grid": "#dfe3e7",
    "faint": "#eceff2",
    "band": "#c5cbd1",
    "winning": "#0072b2",
    "losing": "#009e73",
    "random": "#c45100",
    "random_layerwise": "#a3538a",
    "reinit": "#7a6a00",
    "model0": "#0073b3",
    "model1": "#c45200",
    "model2": "#009e74",
    "model3": "#a3548a",
    "model4": "#7a6b00",
    "model5": "#5f6770",
}
DARK = {
    "paper": "#15181c",
    "ink": "#e8eaed",
    "muted": "#a3abb3",
    "grid": "#343a41",
    "faint": "#262b31",
    "band": "#4a525a",
    "winning": "#56b4e9",
    "losing": "#2fc79a",
    "random": "#f0914a",
    "random_layerwise": "#dc93c6",
    "reinit": "#d8c84a",
    "model0": "#56b5e9",
    "model1": "#f0924a",
    "model2": "#2fc89a",
    "model3": "#dc94c6",
    "model4": "#d8c94a",
    "model5": "#a3acb3",
}
MARKERS = {"winning": "o", "losing": "v", "random": "s", "random_layerwise": "D", "reinit": "^"}
DASHES: dict[str, Any] = {
    "winning": "-",
    "losing": (0, (1, 1.2)),
    "random": (0, (5, 1.5)),
    "random_layerwise": (0, (3, 1, 1, 1)),
    "reinit": (0, (2, 1)),
}
MODEL_MARKERS = ("o", "s", "v", "D", "^", "P")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bigtickets",
    "font.size": 8,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.6,
}


def css(colours: dict[str, str]) -> str:
    """The colours as custom properties of a style sheet."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())
