"""Figures: that they are drawn, alike each time, themed inside the page, safe with any name."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from _synthetic_run import shared_run

from bigtickets.analysis.figures import (
    amount_figure,
    curve_figure,
    gain_figure,
    heads_figure,
    models_figure,
    neurons_figure,
    png_bytes,
    svg_text,
)
from bigtickets.analysis.sections.kept import KeptLevel, kept_levels, masks_of, read_masks
from bigtickets.analysis.sections.means import mean_scores
from bigtickets.analysis.sections.shown import file_name, of_cell
from bigtickets.analysis.statistics.estimates import Estimate, unavailable
from bigtickets.analysis.statistics.phases import Phases
from bigtickets.analysis.table import read_table
from bigtickets.analysis.writing.palette import DARK, LIGHT
from bigtickets.analysis.writing.svg import inline_svg
from bigtickets.analysis.writing.ticks import apart, rectangles, some
from bigtickets.analysis.writing.words import size
from bigtickets.errors import DamagedError

CELL = ("L3", "movie", 1.0)
NASTY = '_$\\frac{1}$ <b>&"\N{SNOWMAN}\U00020000'


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return of_cell(read_table(shared_run()), CELL)


def curve(table: pd.DataFrame, title: str = "L3") -> str:
    figure = curve_figure(mean_scores(table), table, title, (40, 90))
    return svg_text(figure, title)


def test_the_same_figure_gives_the_same_bytes(table: pd.DataFrame) -> None:
    assert curve(table) == curve(table)


def test_texts_stay_texts(table: pd.DataFrame) -> None:
    svg = curve(table)
    for text in ("Accuracy (%)", "Encoder weights removed (%)", "majority class", "random"):
        assert f">{text}</text>" in svg


@pytest.mark.parametrize("seeds", [1, 2])
def test_curves_of_few_seeds_are_drawn(table: pd.DataFrame, seeds: int) -> None:
    assert "winning" in curve(table[table["seed"] < seeds])


def test_phases_that_have_a_width_are_shaded_and_named(table: pd.DataFrame) -> None:
    def texts(*widths: float | None) -> list[str]:
        known = Phases(*widths, labels=())
        figure = curve_figure(mean_scores(table), table, "L3", (40, 90), known)
        return [text.get_text() for text in figure.axes[0].texts]

    assert texts(0.1, 0.3, 0.4) == ["I", "II", "III"]
    assert texts(0.0, 0.8, 0.0) == ["II"]
    assert texts(None, None, None) == []


def test_names_are_never_markup(table: pd.DataFrame) -> None:
    svg = curve(table.assign(metric=NASTY), NASTY)
    inside = inline_svg(svg, "name", NASTY, NASTY)
    for text in (svg, inside):
        assert "<b>" not in text
        assert "$\\frac{1}$" in text
    lines = {NASTY: mean_scores(table).query("kind == 'winning'")}
    assert "frac{1}" in svg_text(models_figure(lines, NASTY), "m")
    assert png_bytes(gain_figure([(NASTY, unavailable("no"), None, None)]))[:4] == b"\x89PNG"


def test_inline_figures_take_the_theme(table: pd.DataFrame) -> None:
    inside = inline_svg(curve(table), "one", "T", "D")
    assert not set(re.findall(r"#[0-9a-f]{6}", inside)) & set(LIGHT.values())
    assert "var(--winning)" in inside
    assert 'role="img"' in inside
    assert '<title id="one-title">T</title><desc id="one-desc">D</desc>' in inside
    ElementTree.fromstring(inside)


def test_inline_figures_share_no_ids(table: pd.DataFrame) -> None:
    one, two = (inline_svg(curve(table), name, "T", "D") for name in ("one", "two"))
    ids = [set(re.findall(r' id="([^"]*)"', text)) for text in (one, two)]
    assert not ids[0] & ids[1]
    used = set(re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)\"", one))
    assert {a or b for a, b in used} <= ids[0]


def test_each_colour_has_one_meaning() -> None:
    assert len(set(LIGHT.values())) == len(LIGHT)
    assert LIGHT.keys() == DARK.keys()


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(theme: dict[str, str]) -> None:
    """WCAG 2: 4.5 for text, 3 for lines and marks."""
    paper = luminance(theme["paper"])
    for name, colour in theme.items():
        if name in ("paper", "grid", "faint", "band"):
            continue
        light, dark = max(paper, luminance(colour)), min(paper, luminance(colour))
        wanted = 4.5 if name in ("ink", "muted") else 3.0
        assert (light + 0.05) / (dark + 0.05) >= wanted, name


def test_heads_have_a_panel_per_level(table: pd.DataFrame) -> None:
    winning = table[table["kind"] == "winning"]
    levels = kept_levels(winning, read_masks(shared_run(), winning), "heads")
    assert [level.ratio for level in levels] == [0.1, 0.2, 0.4, 0.6, 0.8]
    assert all(level.share_LN.shape == (3, 12) for level in levels)
    kept = [level.share_LN.sum() for level in levels]
    assert kept == sorted(kept, reverse=True)
    assert svg_text(heads_figure(levels, "heads"), "h").count("% removed") == 5


def test_random_tickets_of_several_seeds_are_shares(table: pd.DataFrame) -> None:
    random = table[table["kind"] == "random"]
    levels = kept_levels(random, read_masks(shared_run(), random), "neurons")
    assert levels[0].tickets == 3
    assert set(np.unique((3 * levels[2].share_LN).round(9))) <= {0, 1, 2, 3}
    assert "Neurons kept (%)" in svg_text(neurons_figure(levels, "n", "Neurons kept (%)"), "n")


def test_a_broken_ticket_is_named() -> None:
    with pytest.raises(DamagedError, match=r"t\.json"):
        masks_of({"kept": {"heads": [[99]]}, "total": {"heads": 4}}, "t.json")


@pytest.mark.parametrize("shape", [(1, 1), (2, 12), (24, 16), (48, 64)])
def test_rectangles_cover_the_kept_cells(shape: tuple[int, int]) -> None:
    mask_LN = np.random.default_rng(0).random(shape) < 0.6
    corners = rectangles(mask_LN).reshape(-1, 5, 2)
    covered = np.zeros(shape, bool)
    for (left, top), (right, _) in corners[:, :2]:
        covered[round(top + 0.45), round(left + 0.45) : round(right - 0.45) + 1] = True
    assert (covered == mask_LN).all()


def test_a_large_model_is_a_small_file() -> None:
    share_LN = (np.random.default_rng(0).random((48, 64)) < 0.5).astype(float)
    svg = svg_text(heads_figure([KeptLevel(0.5, 0.5, share_LN, 1)], "big"), "big")
    assert len(inline_svg(svg, "big", "T", "D")) < 100_000


def test_gain_and_size_without_intervals() -> None:
    bare = Estimate(0.01, reason="one seed: no interval")
    full = Estimate(0.02, 0.01, 0.03)
    rows = [("a", full, 0.03, 0.01), ("b", bare, 0.01, None), ("c", unavailable("no"), None, None)]
    assert "from noise alone" in svg_text(gain_figure(rows), "g")
    points = [("t", 10_000_000, full), ("t", 2_000_000_000, bare), ("u", 10_000_000, full)]
    svg = svg_text(amount_figure(points, "Gain", ("parameters", "points"), size), "s")
    assert ">10 M</text>" in svg
    assert ">2 B</text>" in svg


def test_labels_are_pushed_apart() -> None:
    placed = apart([50, 50, 49, 10], 5)
    assert min(abs(a - b) for i, a in enumerate(placed) for b in placed[:i]) >= 5
    assert placed[3] == 10
    assert min(apart([1.0, 1.0, 0.0], 5)) == 0


def test_ticks_are_few() -> None:
    assert some(np.arange(1, 13)) == [1, 3, 5, 7, 9, 11]
    assert len(some(np.arange(400))) <= 8


def test_file_names_are_safe_and_differ() -> None:
    assert file_name("curve", "L3", "movie", 1.0) == "curve-L3-movie"
    names = {file_name("curve", name, "t") for name in ("a b", "a/b", "../a", "é", "a-b")}
    assert len(names) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)
