"""A model that one rank cannot hold is loaded, sliced and scored by two."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from groups import engine_file, launch
from small_study import write_model
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel

from bigtickets.study.spec import ModelSpec
from bigtickets.tickets.importance import ImportancePass
from bigtickets.tickets.surgery import remove_units
from bigtickets.training.models import load_model

pytestmark = pytest.mark.distributed
MIB = 2**20


def write_wide(folder: Path) -> Path:
    """67 million parameters, 258 MiB."""
    config = BertConfig(
        vocab_size=64,
        hidden_size=512,
        num_hidden_layers=16,
        num_attention_heads=8,
        intermediate_size=3072,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_model_bigger_than_a_ranks_memory(tmp_path: Path) -> None:
    folder = write_wide(tmp_path / "wide")
    write_model(tmp_path / "wide-tiny", hidden=64)
    out = tmp_path / "found.json"
    # One that gives a layer's weights back as soon as it can.
    keys = ("prefetch_bucket_size", "max_live_parameters", "max_reuse_distance")
    numbers = {f"stage3_{key}": 1_000_000 for key in keys}
    engine = engine_file(tmp_path, "zero3", **numbers)
    # glibc keeps what is freed in pieces of up to 32 MiB: a layer's weights would stay for ever.
    launch("memory_rank.py", 2, folder, engine, out, MALLOC_MMAP_THRESHOLD_=str(MIB))
    found = json.loads(out.read_text())
    assert found["bytes"] > 200 * MIB
    assert found["whole_fails"], "the limit is no limit: the model fits on one rank"
    expected_heads, expected_logits = whole(folder)
    np.testing.assert_allclose(found["heads"], expected_heads, rtol=1e-4)
    np.testing.assert_allclose(found["logits"], expected_logits, rtol=1e-4, atol=1e-5)


def whole(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the plain way gives, without a limit."""
    ids_BT, labels_B = torch.arange(2, 18).view(2, 8), torch.tensor([0, 1])
    network = load_model(ModelSpec(name="wide", path=str(folder), identity="local:x"), 2, 0).eval()
    with ImportancePass(network) as scoring:
        loss_B = cross_entropy(network(ids_BT).logits, labels_B, reduction="none")
        scoring.add(loss_B, torch.ones(2))
    half = {
        "heads": np.arange(8)[None].repeat(16, 0) % 2 == 0,
        "neurons": np.arange(3072)[None].repeat(16, 0) % 2 == 0,
    }
    remove_units(network, half)
    with torch.no_grad():
        logits = network(ids_BT).logits.numpy()
    return scoring.scores().mean()["heads"].ravel(), logits
