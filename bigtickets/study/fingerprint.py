"""What a model is, whatever it is called and wherever it lies: a digest of its files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from bigtickets.errors import DamagedError, InputError

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
)
TOKENIZER_SETTINGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
# Weights are sampled, not read whole: a digest of 140 GB would take minutes at every start, and
# two models that agree in all shapes and in these samples of every file do not occur by accident.
SAMPLE_BYTES = 1 << 20
SAMPLES_PER_FILE = 16


def local_model_identity(directory: Path, key: str) -> str:
    """Digest of config, tokenizer and sampled weights of a model folder; checks that they load."""
    config, weights = model_config(directory, key), weight_files(directory, key)
    digest = hashlib.sha256()
    # Only what decides the network: tools add and reorder other keys when they copy a model.
    config = {k: v for k, v in config.items() if k not in ("_name_or_path", "transformers_version")}
    digest.update(json.dumps(config, sort_keys=True).encode())
    _check_tokenizer(directory, key)
    present = [n for n in TOKENIZER_FILES + TOKENIZER_SETTINGS if (directory / n).is_file()]
    for name in present:
        digest.update(name.encode() + hashlib.sha256((directory / name).read_bytes()).digest())
    for path in weights:
        safetensors_header(path)
        digest.update(path.name.encode())
        _update_with_samples(digest, path)
    return f"local:{digest.hexdigest()[:32]}"


def model_config(directory: Path, key: str) -> dict[str, Any]:
    """The content of a model folder's config.json."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{key}: {path} is missing; point the key at a folder made by save_pretrained"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"{key}: {path} is not valid JSON ({error})") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"{key}: {path} names no model_type; it is no transformers config")
    return config


def weight_files(directory: Path, key: str) -> list[Path]:
    """The safetensors files of a model folder, all shards of its index present."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise DamagedError(f"{key}: {index} is damaged; save or fetch it again") from None
        paths = [directory / name for name in names]
    else:
        paths = [directory / "model.safetensors"]
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"{key}: {path} is missing; only safetensors weights are read "
                "(save_pretrained writes them)"
            )
    return paths


def safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """(dtype, shape and data_offsets of each tensor by name; where in the file its data begins).

    DamagedError unless the header parses and the file is as long as the header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        whole = 2 <= header_size <= size - 8
        try:
            header = json.loads(file.read(header_size)) if whole else {}
            header.pop("__metadata__", None)
            ends = [v["data_offsets"][1] for v in header.values()]
        except (ValueError, AttributeError, KeyError, TypeError):
            whole, ends = False, []
    if not whole or size != 8 + header_size + max(ends, default=0):
        raise DamagedError(f"{path}: damaged or cut short; fetch or save the file again")
    return header, 8 + header_size


def _check_tokenizer(directory: Path, key: str) -> None:
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(
            f"{key}: no tokenizer in {directory}; put the model's tokenizer.json "
            "(or vocab.txt) beside its weights"
        )


def _update_with_samples(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    digest.update(size.to_bytes(8, "little"))
    last = max(size - SAMPLE_BYTES, 0)
    with path.open("rb") as file:
        for offset in sorted({last * i // (SAMPLES_PER_FILE - 1) for i in range(SAMPLES_PER_FILE)}):
            file.seek(offset)
            digest.update(file.read(SAMPLE_BYTES))
