"""Figures for the inside of the page: an SVG file's text that takes the reader's theme and fonts.

The files beside the page stay as they were drawn: light, whole, for papers.
"""

import re
from html import escape

from bigtickets.analysis.writing.palette import LIGHT

DROPPED = (
    r"<\?xml.*?\?>",
    r"<!DOCTYPE.*?>",
    r"<metadata>.*?</metadata>",
    r"<title>.*?</title>",
    r"<style.*?</style>",
    r" xmlns(:xlink)?=\"[^\"]*\"",
    r"(?<=<svg) (width|height)=\"[^\"]*\"",
    r" font-family: [^;\"]*;?",
    r" transform=\"rotate\(-0 [^)]*\)\"",
    r"<defs>\s*</defs>",
)


def inline_svg(svg: str, name: str, title: str, description: str) -> str:
    """The `<svg>` element: colours as custom properties, ids of its own, title and description.

    `name` must be unique on the page and made of letters, digits, `-` and `_`.
    """
    for pattern in DROPPED:
        svg = re.sub(pattern, "", svg, flags=re.DOTALL)
    svg = re.sub(r" d=\"[^\"]*\"", _rounded, svg)
    svg = _own_ids(svg, name)
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{role})")
    # Before the numbers of a path, a line break is a space.
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><").strip()
    labels = f'<title id="{name}-title">{escape(title)}</title>'
    labels += f'<desc id="{name}-desc">{escape(description)}</desc>'
    width = _width(svg)
    attributes = f' role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc"'
    return re.sub(
        r"<svg([^>]*)>",
        lambda m: f'<svg{m.group(1)}{attributes} style="--width: {width}px">{labels}',
        svg,
        count=1,
    )


def _rounded(path: re.Match[str]) -> str:
    """A path's numbers with two digits: a hundredth of a point is below what is seen."""
    return re.sub(r"(\.\d\d)\d+", r"\1", path.group(0))


def _own_ids(svg: str, name: str) -> str:
    """Keep only the ids that something refers to, prefixed: figures share one page."""
    used = set(re.findall(r"url\(#([^)]*)\)|xlink:href=\"#([^\"]*)\"", svg))
    keys = {a or b for a, b in used}

    def own(match: re.Match[str]) -> str:
        return f' id="{name}-{match.group(1)}"' if match.group(1) in keys else ""

    svg = re.sub(r" id=\"([^\"]*)\"", own, svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    return svg.replace('xlink:href="#', f'href="#{name}-')


def _width(svg: str) -> int:
    """Width of the drawing in points."""
    found = re.search(r"viewBox=\"\S+ \S+ (\S+) ", svg)
    return round(float(found.group(1))) if found else 300
