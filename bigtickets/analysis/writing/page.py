"""A report as one self-contained HTML page: no script, no network, nothing beside it needed."""

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from bigtickets.analysis.writing import blocks
from bigtickets.analysis.writing.palette import DARK, LIGHT, css
from bigtickets.analysis.writing.svg import inline_svg

SHORT = 24
"""Rows up to which a table is not torn between two printed pages."""
HERE = Path(__file__).parent
LONG = 30
"""Letters of a cell from which it may take several lines."""


def page(report: blocks.Report) -> str:
    """The page's text. Everything from records and study is escaped here."""
    style = Template((HERE / "page.css").read_text())
    template = Template((HERE / "page.html").read_text())
    entries = [f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in report.sections]
    return template.substitute(
        title=escape(report.title),
        subtitle=escape(report.subtitle),
        style=style.substitute(light=css(LIGHT), dark=css(DARK)),
        contents="\n".join(entries),
        sections="\n".join(_section(section) for section in report.sections),
    )


def _section(section: blocks.Section) -> str:
    body = "\n".join(_block(block) for block in section.blocks)
    heading = f'<h2 id="{section.key}-title">{escape(section.title)}</h2>'
    return (
        f'<section id="{section.key}" aria-labelledby="{section.key}-title">\n'
        f"{heading}\n{body}\n</section>"
    )


def _block(block: blocks.Block) -> str:
    match block:
        case blocks.Lead():
            return f'<p class="lead">{escape(block.text)}</p>'
        case blocks.Text():
            return f"<p{' class=small' if block.small else ''}>{escape(block.text)}</p>"
        case blocks.Items():
            return "<ul>" + "".join(f"<li>{escape(t)}</li>" for t in block.texts) + "</ul>"
        case blocks.Table():
            return _fold(block.caption, _table(block), block.folded, block.archived)
        case blocks.Gallery():
            scrolls = " tabindex=0" if block.width == "wide" else ""
            figures = "\n".join(_figure(picture, scrolls) for picture in block.pictures)
            return f'<div class="gallery {block.width}">\n{figures}\n</div>'
        case blocks.Code():
            inside = f'<pre tabindex="0"><code>{escape(block.text)}</code></pre>'
            return _fold(block.caption, inside, block.folded)
        case blocks.Links():
            return "<ul>" + "".join(_link(*link) for link in block.links) + "</ul>"
        case blocks.Embedded():
            return _embedded(block)


def _fold(caption: str, inside: str, folded: bool, archived: bool = False) -> str:
    if not (folded or archived):
        return inside
    kind = " class=archived" if archived else ""
    return f"<details{kind}><summary>{escape(caption)}</summary>\n{inside}\n</details>"


def _table(table: blocks.Table) -> str:
    """A table in a box of its own, which scrolls if it must: the page never does."""
    sides = ["" if side == "l" else " class=r" for side in table.align]
    cells = zip(sides, table.headers, strict=True)
    head = "".join(f"<th scope=col{side}>{escape(text)}</th>" for side, text in cells)
    body = "\n".join(_row(row, sides) for row in table.rows)
    shut = table.folded or table.archived
    caption = "" if shut else f"<p class=caption>{escape(table.caption)}</p>"
    short = " short" if len(table.rows) <= SHORT else ""
    return (
        f'<div class="framed{short}">{caption}<div class="scroll" role="region" tabindex="0" '
        f'aria-label="{escape(table.caption)}"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div></div>"
    )


def _row(row: Sequence[str], sides: list[str]) -> str:
    first, *others = zip(row, sides, strict=True)
    cells = [f"<th scope=row{first[1]}>{escape(first[0])}</th>"]
    for text, side in others:
        wrap = " class=wrap" if len(text) > LONG and not side else side
        cells.append(f"<td{wrap}>{escape(text)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _figure(picture: blocks.Picture, scrolls: str) -> str:
    key = f"figure-{picture.name}"
    svg = inline_svg(picture.svg, key, picture.title, picture.description)
    address = f"figures/{picture.name}"
    files = f'<a href="{address}.svg">SVG</a> <a href="{address}.png">PNG</a>'
    return (
        f'<figure id="{key}"><div class=drawing{scrolls}>{svg}</div>\n'
        f"<figcaption>{escape(picture.caption)} "
        f"<span class=files>{files}</span></figcaption></figure>"
    )


def _link(text: str, address: str, note: str) -> str:
    return f'<li><a href="{escape(address)}">{escape(text)}</a> {escape(note)}</li>'


def _embedded(block: blocks.Embedded) -> str:
    data = base64.b64encode(block.content).decode()
    address = f"data:{block.media_type};base64,{data}"
    name = re.sub(r"[^\w.-]", "_", block.name)
    return f'<p><a download="{name}" href="{address}">{escape(block.text)}</a></p>'
