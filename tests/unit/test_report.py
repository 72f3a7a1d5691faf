"""The report: whole, self-contained, honest about what is missing, safe with any name."""

import base64
import io
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from _synthetic_run import each_seed, make_run, reported_run, study

from bigtickets.analysis.predictions import examples_of_cell
from bigtickets.analysis.report import ReportPaths, build_report, compose
from bigtickets.analysis.results import analyse
from bigtickets.analysis.sections import bydata, bysize, evidence
from bigtickets.analysis.sections.shown import of_cell
from bigtickets.analysis.statistics.curves import curves
from bigtickets.analysis.statistics.levels import level_estimates
from bigtickets.analysis.statistics.phases import collapse_point
from bigtickets.analysis.table import in_points, read_table
from bigtickets.analysis.writing import blocks
from bigtickets.analysis.writing.markdown import markdown
from bigtickets.analysis.writing.page import page
from bigtickets.errors import InputError
from bigtickets.study.folder import RunFolder
from bigtickets.study.steps import Step

SECTIONS = [
    "Answer",
    "Curves",
    "Gain of the super ticket",
    "Phases and collapse",
    "Controls",
    "Size",
    "Which units stay",
    "Missing and degenerate trials",
    "Numbers",
    "Provenance",
    "Downloads",
]
NASTY = "<script>alert('x')</script>&`|*_$"


class Outline(HTMLParser):
    """Checks that elements nest, and collects headings, ids and addresses."""

    EMPTY = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key in ("href", "src"):
                self.addresses.append(value or "")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def outline(html: str) -> Outline:
    parser = Outline()
    parser.feed(html)
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def html() -> str:
    return (reported_run().report / "index.html").read_text()


@pytest.fixture(scope="module")
def text() -> str:
    return (reported_run().report / "report.md").read_text()


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    """The report of a small study whose names are markup."""
    spec = study(models=(NASTY,), tasks=(NASTY,), seeds=(0, 1), ratios=(0.0, 0.5))
    return build_report(make_run(tmp_path_factory.mktemp("nasty") / "run", spec))


def test_sections_in_order_answer_first(html: str, text: str) -> None:
    assert outline(html).headings == SECTIONS
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS


def test_the_page_needs_nothing_beside_it(html: str) -> None:
    parser = outline(html)
    assert not {"script", "img", "link", "iframe", "object"} & parser.tags
    assert not re.search(r"(src|href)=\"?(https?:)?//|@import|url\((?!#)", html)
    assert "default-src 'none'" in html


def test_every_address_leads_somewhere(html: str) -> None:
    parser = outline(html)
    assert len(parser.ids) == len(set(parser.ids))
    for address in parser.addresses:
        if address.startswith("#"):
            assert address[1:] in parser.ids
        elif not address.startswith("data:"):
            assert (reported_run().report / address).is_file(), address


def test_the_table_travels_inside(html: str) -> None:
    data = re.search(r'href="data:text/csv;base64,([^"]*)"', html)
    assert data
    inside = pd.read_csv(io.BytesIO(base64.b64decode(data.group(1))))
    assert list(inside["id"]) == list(read_table(reported_run())["id"])
    assert 'download="ladder.csv"' in html


def test_figures_have_titles_and_words(html: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svgs) == len(list(reported_run().report.glob("figures/*.svg"))) == 10
    for svg in svgs:
        assert re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]+</desc>", svg)
        assert "<style" not in svg


def test_markdown_links_to_figures_that_exist(text: str) -> None:
    links = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert len(links) == 10
    assert all((reported_run().report / link).is_file() for link in links)


def test_missing_and_degenerate_trials_are_told(html: str, text: str) -> None:
    for page_text in (html, text):
        assert "64 of 66 planned trials have finished" in page_text
        assert "out of memory at micro-batch 32" in page_text
        assert "constant prediction" in page_text
        assert "at or below that of always answering the majority class" in page_text


def test_provenance_names_every_record(html: str) -> None:
    for step_id in read_table(reported_run())["id"]:
        assert step_id in html
    for word in ("torch 2.13.0", "0123456789abcdef", "node001 and node002", "importance:"):
        assert word in html


def test_naive_and_null_stand_beside_the_de_biased_gain(text: str) -> None:
    header = next(line for line in text.splitlines() if "De-biased" in line and line[0] == "|")
    assert "Naive" in header
    assert "Noise alone" in header


def test_two_sizes_are_no_trend(text: str) -> None:
    assert "Two sizes are a difference, larger minus smaller, and not a trend." in text


def test_building_again_gives_the_same_bytes_and_drops_old_figures(nasty: ReportPaths) -> None:
    before = nasty.html.read_bytes()
    old = nasty.figures[0].with_name("curve-gone.svg")
    old.write_text("")
    again = build_report(RunFolder(nasty.html.parents[1]))
    assert again == nasty
    assert again.html.read_bytes() == before
    assert not old.exists()
    assert {p.suffix for p in again.figures} == {".svg", ".png"}


def test_no_trial_is_an_input_error_with_the_remedy(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", keep=lambda step: False)
    with pytest.raises(InputError, match="bigtickets status"):
        build_report(folder)
    assert not folder.report.exists()


def test_one_seed_and_one_model(tmp_path: Path) -> None:
    spec = study(models=("L3",), tasks=("movie",), seeds=(0,), ratios=(0.0, 0.3))
    text = build_report(make_run(tmp_path / "run", spec)).markdown.read_text()
    assert "is not to be had from this study" in text
    assert "One seed: no interval can be had" in text
    assert "one model says nothing about size" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_dense_models_alone(tmp_path: Path) -> None:
    spec = study(models=("L3",), tasks=("movie",), seeds=(0, 1))
    folder = make_run(tmp_path / "run", spec, keep=lambda step: step.kind == "dense")
    shutil.rmtree(folder.tickets)
    text = build_report(folder).markdown.read_text()
    assert "there is no answer" in text
    assert "no winning ticket has been trained yet" in text


def test_tickets_of_each_seed_are_compared(tmp_path: Path) -> None:
    spec = study(models=("L3",), tasks=("movie",), ratios=(0.0, 0.5), importance=each_seed())
    text = build_report(make_run(tmp_path / "run", spec)).markdown.read_text()
    assert "Do seeds keep the same units?" in text
    assert "Krippendorff" in text


def test_names_are_never_markup(nasty: ReportPaths) -> None:
    html, text = nasty.html.read_text(), nasty.markdown.read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in text.split("```")[0]
    outline(html)


def test_blocks_as_html_and_markdown() -> None:
    section = blocks.Section(
        "s",
        "S",
        [
            blocks.Code("Some file", "a ``` b\n<i>", "yaml"),
            blocks.Table("T", "lr", ["a", "b"], [["x|y", "1"]], folded=True),
            blocks.Items(["<one>"]),
        ],
    )
    report = blocks.Report("R", "sub", [section])
    html, text = page(report), markdown(report)
    outline(html)
    assert html.count("<details>") == 2
    assert "a ``` b\n&lt;i&gt;" in html
    assert "````yaml\na ``` b\n<i>\n````" in text
    assert "| x\\|y | 1 |" in text
    assert "- &lt;one&gt;" in text


def test_three_sizes_are_a_trend_with_its_least_p_value(tmp_path: Path) -> None:
    spec = study(models=("L3", "L6", "L12"), tasks=("movie",), ratios=(0.0, 0.2, 0.5, 0.8))
    results = analyse(folder := make_run(tmp_path / "run", spec), read_table(folder))
    tables = [b for b in bysize.size_section(results).blocks if isinstance(b, blocks.Table)]
    assert [t.caption for t in tables] == [
        "Model size",
        "Collapse of the curves of all sizes (exploratory)",
    ]
    gain = tables[0].rows[0]
    assert gain[3] == "trend"
    assert gain[tables[0].headers.index("Least p")] not in ("–", "")


def test_gain_on_the_loss_where_predictions_are_others_and_on_the_rescaled_score() -> None:
    table = in_points(read_table(reported_run()))
    dense = table[table["kind"] == "dense"].set_index(["model", "seed"])["loss"]
    at = (table["kind"] == "winning") & (table["ratio"] == 0.2)
    whose = zip(table["model"][at], table["seed"][at], strict=True)
    table.loc[at, "loss"] = [dense[who] - 0.3 - 0.01 * who[1] for who in whose]
    results = analyse(reported_run(), table)
    losses = [one for one in results.other_gains if one.value == "loss"]
    for loss in losses:
        assert loss.debiased.value == pytest.approx(0.31)
        assert loss.over == ("seeds",)
        assert loss.found
    whys = [why for _, why in results.no_examples]
    assert whys == ["the predictions do not give the recorded losses"] * len(losses)
    for score, rescaled in zip(results.gains, results.other_gains[len(losses) :], strict=True):
        mine = table[(table["kind"] == "dense") & (table["model"] == score.model)]
        unit = mine["score"].mean() - mine["majority_score"].mean()
        assert rescaled.debiased.value * unit == pytest.approx(score.debiased.value)
        assert rescaled.debiased.low * unit == pytest.approx(score.debiased.low)
        assert (rescaled.p_value, rescaled.over) == (score.p_value, ("seeds", "examples"))
    shown = next(b for b in evidence.gain_section(results).blocks
                 if isinstance(b, blocks.Table) and "on the loss" in b.caption)  # fmt: skip
    row = shown.rows[0]
    assert row[:3] == ["L3 on tweets", "evaluation loss", "+0.310"]
    assert row[-2:] == ["seeds", "yes"]


def test_the_loss_is_resampled_where_predictions_give_it_and_collapse_has_two_axes() -> None:
    table = in_points(read_table(reported_run()))
    results = analyse(reported_run(), table)
    assert results.no_examples == []
    assert {one.over for one in results.other_gains} == {("seeds", "examples")}
    whole = curves(table, axis="x_model")
    for curve, one, told in zip(whole, results.transitions, results.whole_model, strict=True):
        trials = of_cell(table, (one.model, one.task, one.data_fraction))
        levels = level_estimates(curve, examples_of_cell(reported_run(), trials)[0])
        asked = collapse_point(curve.x_L, levels, one.delta_sd, 0.95)
        assert told.value == pytest.approx(asked.value)
        assert told.value < one.collapse_sd.value
        assert (told.low, told.high) == pytest.approx((asked.low, asked.high))


def test_less_data_sharpens_where_it_does(tmp_path: Path) -> None:
    """A tenth of the data halves the width: three shares are a trend, and the least p is told."""
    ratios = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    spec = study(("L6",), ("movie",), ratios=ratios, kinds=("winning",),
                 data_fractions=(0.01, 0.1, 1.0))  # fmt: skip
    table = read_table(folder := make_run(tmp_path / "run", spec))
    results = analyse(folder, table)
    section = bydata.data_section(results, table)
    sharp = next(one for one in results.data_laws if one.law.what == "sharpness")
    assert [point.amount for point in sharp.points] == [21, 214, 2145]
    assert sharp.law.slope.value < 0
    verdicts = next(b for b in section.blocks if isinstance(b, blocks.Items))
    assert verdicts.texts[0].startswith("movie: ")
    assert "3 shares of the data, 1 model" in verdicts.texts[0]
    (rows,) = (b.rows for b in section.blocks if isinstance(b, blocks.Table))
    assert [row[0] for row in rows][-1] == "Sharpness (1 / width of the fall), movie"
    assert rows[0][1:4] == ["3", "1", "trend"]
    assert rows[0][-2] == "0.333"
    pictures = next(b.pictures for b in section.blocks if isinstance(b, blocks.Gallery))
    assert [p.name for p in pictures][:1] == ["data-gain-movie"]
    assert "2,145 training examples" in pictures[0].description


def test_one_share_has_no_section_about_data(html: str) -> None:
    assert 'id="data"' not in html


def test_what_the_reviewers_list_names_is_in_the_report(tmp_path: Path) -> None:
    """Sections by address, captions and columns word for word; of a study that has all of them."""
    each, shares = each_seed(), (1.0, 0.5)
    spec = study(("L3", "L6", "L12"), seeds=(0, 1), ratios=(0, 0.5, 0.8), importance=each,
                 data_fractions=shares)  # fmt: skip

    def keep(step: Step) -> bool:
        wanted = step.data_fraction == 1 or (step.model, step.task) == ("L3", "movie")
        return wanted and (step.seed == 0 or step.ratio < 0.8)

    folder = make_run(tmp_path / "run", spec, keep)
    report = compose(folder, read_table(folder))
    shown = unescape(page(report))
    document = Path(__file__).parents[2] / "docs" / "results" / "reviewer.md"
    rows = [line.split("|")[2:4] for line in document.read_text().splitlines() if line[:1] == "|"]
    named = {name for row in rows for cell in row for name in re.findall(r"`([^`]+)`", cell)}
    named -= {"plan", "difference"}  # a command; the word for two sizes, of which here are three
    assert len(named) > 50
    keys = {section.key for section in report.sections}
    assert {name.removeprefix("#") for name in named if name.startswith("#")} <= keys
    assert [name for name in named if not name.startswith("#") and name not in shown] == []
