"""The engine's settings: shipped ones are whole, a user's own may not change a result."""

import json
from pathlib import Path

import pytest

from bigtickets.errors import InputError
from bigtickets.study.spec import ExecutionSpec
from bigtickets.training.settings import STUDY_KEYS, ds_configs, offload_device, read_ds_config

SHIPPED = ["zero0", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"]


def test_one_file_per_stage() -> None:
    assert sorted(path.stem for path in ds_configs().glob("*.json")) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_passes_for_a_users_own(name: str) -> None:
    stage, offload = int(name[4]), name.endswith("offload")
    config = read_ds_config(ExecutionSpec(zero=stage, offload=offload))
    path = str(ds_configs() / f"{name}.json")
    assert config == read_ds_config(ExecutionSpec(zero=stage, ds_config=path))
    assert (offload_device(config, "offload_optimizer") == "cpu") == offload
    assert (offload_device(config, "offload_param") == "cpu") == (name == "zero3_offload")
    # Their defaults have changed between releases.
    assert config["zero_force_ds_cpu_optimizer"] is False
    if stage:
        assert config["zero_optimization"]["overlap_comm"] is False
    if offload:
        assert config["zero_optimization"]["offload_optimizer"]["pin_memory"] is True


BAD = {
    **{key: ({key: 1}, key) for key in STUDY_KEYS},
    "unknown": ({"compression_training": {}}, "compression_training may change a result"),
    "quantised": (
        {"zero_optimization": {"stage": 2, "zero_quantized_gradients": True}},
        "zero_quantized_gradients: it rounds gradients",
    ),
    "old key": ({"zero_optimization": {"stage": 2, "cpu_offload": True}}, "offload_optimizer"),
    "auto": ({"zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}}, '"auto" is'),
    "stage": ({"zero_optimization": {"stage": 1}}, "stage is 1, execution.zero is 2"),
    "offload": (
        {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
        "offload_param needs ZeRO 3",
    ),
    "no object": ([], "expected a JSON object"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_users_file_is_refused_by_key(case: str, tmp_path: Path) -> None:
    content, said = BAD[case]
    path = tmp_path / "engine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as raised:
        read_ds_config(ExecutionSpec(zero=2, ds_config=str(path)))
    assert "engine.json" in str(raised.value)
    assert said in str(raised.value)
