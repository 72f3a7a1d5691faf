"""What a report is made of, before it is HTML or Markdown. All texts are plain: never markup."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Lead:
    """The answer: what everybody reads."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; a small one explains how to read what stands above or below."""

    text: str
    small: bool = False


@dataclass(frozen=True)
class Items:
    """A list of short statements."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells as people read them; `align` has one letter per column, l or r."""

    caption: str
    align: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False
    """Shut on the screen until it is clicked; printed all the same."""
    archived: bool = False
    """Shut, and not printed: for looking up."""


@dataclass(frozen=True)
class Picture:
    """A figure, drawn already."""

    name: str
    """File name without its ending, and id on the page."""
    title: str
    description: str
    """What the figure shows, in words and numbers, for those who don't see it."""
    caption: str
    svg: str
    png: bytes


@dataclass(frozen=True)
class Gallery:
    """Figures side by side where there is room."""

    pictures: Sequence[Picture]
    width: Literal["narrow", "wide"] = "narrow"


@dataclass(frozen=True)
class Code:
    """A file's text."""

    caption: str
    text: str
    language: str = ""
    folded: bool = True


@dataclass(frozen=True)
class Links:
    """Files beside the report: (text, relative address, what it is)."""

    links: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Embedded:
    """A file that travels inside the page: only HTML can carry it."""

    text: str
    name: str
    media_type: str
    content: bytes


Block = Lead | Text | Items | Table | Gallery | Code | Links | Embedded


@dataclass(frozen=True)
class Section:
    """A chapter; `key` is its address on the page."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """The whole report."""

    title: str
    subtitle: str
    sections: Sequence[Section]

    @property
    def pictures(self) -> list[Picture]:
        """All figures, in order."""
        galleries = [b for s in self.sections for b in s.blocks if isinstance(b, Gallery)]
        return [picture for gallery in galleries for picture in gallery.pictures]
