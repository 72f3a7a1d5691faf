"""A report as Markdown; its figures are links to the files beside it."""

import re

from bigtickets.analysis.writing import blocks


def markdown(report: blocks.Report, figures: str = "figures", ending: str = "png") -> str:
    """The report's text; `figures`: the folder of the figures, relative to it; `ending`: theirs."""
    parts = [f"# {_plain(report.title)}", _plain(report.subtitle)]
    for section in report.sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [text for block in section.blocks if (text := _block(block, figures, ending))]
    return "\n\n".join(parts) + "\n"


def _block(block: blocks.Block, figures: str, ending: str) -> str:
    match block:
        case blocks.Lead():
            return f"**{_plain(block.text)}**"
        case blocks.Text():
            return _plain(block.text)
        case blocks.Items():
            return "\n".join(f"- {_plain(text)}" for text in block.texts)
        case blocks.Table():
            return _table(block)
        case blocks.Gallery():
            return "\n\n".join(_picture(picture, figures, ending) for picture in block.pictures)
        case blocks.Code():
            fence = _fence(block.text)
            return f"{_plain(block.caption)}\n\n{fence}{block.language}\n{block.text}\n{fence}"
        case blocks.Links():
            rows = (
                f"- [{_plain(text)}]({href}) {_plain(note)}" for text, href, note in block.links
            )
            return "\n".join(rows)
        case blocks.Embedded():
            return ""


def _table(table: blocks.Table) -> str:
    rules = ["---:" if side == "r" else ":---" for side in table.align]
    rows = [[_plain(cell) for cell in row] for row in (table.headers, *table.rows)]
    lines = [rows[0], rules, *rows[1:]]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{_plain(table.caption)}\n\n{grid}"


def _picture(picture: blocks.Picture, figures: str, ending: str) -> str:
    link = f"![{_plain(picture.description)}]({figures}/{picture.name}.{ending})"
    return f"{link}\n\n{_plain(picture.caption)}"


def _plain(text: str) -> str:
    """A text that Markdown shows as it is: names may hold its signs, and HTML's."""
    text = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(text.split()))
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _fence(text: str) -> str:
    """More backticks than the text has in a row."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)
