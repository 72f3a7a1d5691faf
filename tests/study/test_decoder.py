"""A study of a decoder with key-value groups, whose tokenizer tells segments apart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_study import records, write_data, write_model, write_study
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = pytest.mark.study


def test_a_llama_goes_through_every_step(tmp_path: Path) -> None:
    write_model(tmp_path / "model")  # its tokenizer stays
    write_data(tmp_path / "data", rows=32)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tickets = {"ratios": [0, 0.5], "kinds": ["winning"]}
    training = {"epochs": 1, "batch_size": 8, "max_length": 24}
    write_study(tmp_path, tickets=tickets, training=training, seeds=[0])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bigtickets", "run", "study.yaml"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    counts = {
        record["spec"]["kind"]: record["counts"]
        for record in records(tmp_path / "runs" / "small").values()
    }
    assert set(counts) == {"dense", "winning"}
    assert (counts["dense"]["heads"], counts["dense"]["neurons"]) == (8, 128)  # groups
    assert (counts["winning"]["heads"], counts["winning"]["neurons"]) == (4, 64)
    # Half of the layers: a group has two queries, a key, a value, two outputs; a neuron three.
    half = 4 * (4 * (2 + 1 + 1 + 2) * 32) + 64 * 3 * 32
    assert counts["dense"]["parameters"] - counts["winning"]["parameters"] == half
