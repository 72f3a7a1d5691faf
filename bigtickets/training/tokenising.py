"""Texts to token ids, with the model's own tokenizer, cut but not padded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigtickets.errors import InputError
from bigtickets.study.columns import first_line
from bigtickets.study.fingerprint import TOKENIZER_FILES
from bigtickets.study.spec import ModelSpec

BLOCK = 1000


@dataclass(frozen=True)
class Ragged:
    """Examples of different lengths, end to end."""

    input_ids: np.ndarray
    """int32, all examples' tokens."""
    offsets: np.ndarray
    """int64, N + 1: example i has the tokens offsets[i] to offsets[i + 1]."""
    token_type_ids: np.ndarray | None
    """int8, beside `input_ids`; None if the tokenizer has none."""
    truncated: int
    """Examples that were longer than allowed."""


def load_tokenizer(model: ModelSpec) -> Any:
    """The model's own tokenizer; InputError that names the folder if there is none."""
    from transformers import AutoTokenizer

    folder = Path(model.path)
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        # Without this check a tokenizer that knows nothing but [UNK] is made, without a word.
        raise InputError(_no_tokenizer(model, "none of them is there"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(_no_tokenizer(model, first_line(error))) from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(_no_tokenizer(model, "the vocabulary is empty"))
    return tokenizer


def padding_id(tokenizer: Any) -> int:
    """Token that fills up rows: the tokenizer's own, else its end of text, else 0."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def tokenise(
    tokenizer: Any, texts: Sequence[list[str]], max_length: int, tick: Callable[[], None]
) -> Ragged:
    """Tokenise one text or a pair per example; `tick` is called before every block of rows.

    A pair that is too long loses tokens from the longer text first.
    """
    needed = tokenizer.num_special_tokens_to_add(pair=len(texts) == 2) + len(texts)
    if max_length < needed:
        raise InputError(
            f"training.max_length: {max_length} leaves no room for text; give {needed} at least"
        )
    parts = []
    for start in range(0, len(texts[0]), BLOCK):
        tick()
        parts.append(_block(tokenizer, [c[start : start + BLOCK] for c in texts], max_length))
    return _joined(parts)


def _block(tokenizer: Any, texts: list[list[str]], max_length: int) -> Ragged:
    """Only rows that are too long are tokenised a second time, with the cut."""
    rows = tokenizer(*texts, truncation=False, return_attention_mask=False, verbose=False)
    ids, types = rows["input_ids"], rows.get("token_type_ids")
    long = [i for i, row in enumerate(ids) if len(row) > max_length]
    if long:
        cut = tokenizer(
            *([column[i] for i in long] for column in texts),
            truncation="longest_first",
            max_length=max_length,
            return_attention_mask=False,
            verbose=False,
        )
        for place, i in enumerate(long):
            ids[i] = cut["input_ids"][place]
            if types is not None:
                types[i] = cut["token_type_ids"][place]
    lengths = np.array([0, *(len(row) for row in ids)], np.int64)
    flat_types = None if types is None else np.concatenate([np.array(t, np.int8) for t in types])
    flat_ids = np.concatenate([np.array(row, np.int32) for row in ids])
    return Ragged(flat_ids, np.cumsum(lengths), flat_types, len(long))


def _joined(parts: list[Ragged]) -> Ragged:
    starts = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    ends = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
    types = [part.token_type_ids for part in parts if part.token_type_ids is not None]
    return Ragged(
        np.concatenate([part.input_ids for part in parts]),
        np.concatenate([np.zeros(1, np.int64), *ends]),
        np.concatenate(types) if types else None,
        sum(part.truncated for part in parts),
    )


def _no_tokenizer(model: ModelSpec, why: str) -> str:
    return (
        f"model {model.name}: no tokenizer in {model.path} ({why});\n"
        f"put the model's tokenizer.json (or {', '.join(TOKENIZER_FILES[1:])}) there"
    )
