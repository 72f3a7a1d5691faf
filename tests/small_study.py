"""A study that takes seconds: a tiny random BERT with a real tokenizer, and made-up reviews."""

import json
import random
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import BertConfig, BertModel, BertTokenizerFast

GOOD = ["good", "great", "fine", "lovely", "bright", "clever", "warm", "fresh", "sharp", "funny"]
BAD = ["bad", "dull", "poor", "awful", "weak", "slow", "cold", "stale", "dim", "boring"]
HANG_S = 1800
"""Seconds after which a command counts as hanging; a busy machine may need a quarter of them."""
PLAIN = [
    "the",
    "a",
    "film",
    "plot",
    "cast",
    "scene",
    "and",
    "is",
    "was",
    "very",
    "it",
    "this",
    "with",
    "of",
]


def write_model(folder: Path, layers: int = 2, hidden: int = 32, heads: int = 4) -> Path:
    """A random encoder with a whole-word vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PLAIN, *GOOD, *BAD]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
    )
    torch.manual_seed(layers)
    BertModel(config).save_pretrained(folder)
    return folder


def write_data(folder: Path, rows: int = 96) -> Path:
    """train.tsv (`rows`) and validation.tsv (half of it) of sentences with a good or a bad word."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for name, count in (("train", rows), ("validation", rows // 2)):
        lines = ["sentence\tlabel"]
        for i in range(count):
            words = draw.choices(PLAIN, k=draw.randint(3, 14))
            words.insert(draw.randrange(len(words)), draw.choice(GOOD if i % 2 else BAD))
            lines.append(f"{' '.join(words)}\t{i % 2}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def study(root: Path, **changes: Any) -> dict[str, Any]:
    """The study as a mapping; `changes` replace whole keys."""
    return {
        "study": "small",
        "models": [{"name": "tiny", "path": str(root / "model")}],
        "tasks": [
            {
                "name": "reviews",
                "train": str(root / "data" / "train.tsv"),
                "validation": str(root / "data" / "validation.tsv"),
                "text": "sentence",
                "label": "label",
                "metric": "accuracy",
            }
        ],
        "tickets": {"ratios": [0, 0.5], "kinds": ["winning", "random"]},
        "training": {"epochs": 5, "learning_rate": 3e-3, "batch_size": 8, "max_length": 24},
        "seeds": [0, 1],
        # Threads that spin and wait for each other cost more than they give on so small a model.
        "execution": {"threads": 1},
        **changes,
    }


def write_study(root: Path, **changes: Any) -> Path:
    """Model, data and study.yaml under `root`."""
    if not (root / "model").exists():
        write_model(root / "model")
        write_data(root / "data")
    path = root / "study.yaml"
    path.write_text(yaml.safe_dump(study(root, **changes)))
    return path


def records(run: Path) -> dict[str, dict[str, Any]]:
    """Trial records by id."""
    paths = sorted((run / "trials").glob("*/record.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}
