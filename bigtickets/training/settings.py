"""What `ds_configs/` or a user's own file says about the engine, and what neither may say."""

import json
from pathlib import Path
from typing import Any

import bigtickets
from bigtickets.errors import InputError
from bigtickets.study.spec import ExecutionSpec

# Owned by the study: a file that sets them would be a second truth.
STUDY_KEYS = {
    "train_batch_size": "training.batch_size",
    "train_micro_batch_size_per_gpu": "execution.micro_batch",
    "gradient_accumulation_steps": "training.batch_size and execution.micro_batch",
    "gradient_clipping": "training.max_grad_norm",
    "optimizer": "training",
    "scheduler": "training.warmup",
    "bf16": "execution.precision",
    "fp16": "execution.precision",
    "torch_autocast": "execution.precision",
}
# What a user's file may set: how the engine works and what it prints, never what it computes.
ENGINE_KEYS = {
    "steps_per_print",
    "wall_clock_breakdown",
    "dump_state",
    "prescale_gradients",
    "gradient_predivide_factor",
    "communication_data_type",
    "disable_allgather",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "zero_optimization",
    "aio",
    "comms_logger",
    "flops_profiler",
    "memory_breakdown",
}
# Of `zero_optimization`: rounding to a few bits, updates that come late, names without effect.
FORBIDDEN = {
    "zero_quantized_weights": "it rounds weights",
    "zero_quantized_nontrainable_weights": "it rounds weights",
    "zero_quantized_gradients": "it rounds gradients",
    "zenflow": "it applies updates late",
    "cpu_offload": "say offload_optimizer",
    "cpu_offload_param": "say offload_param",
    "cpu_offload_use_pin_memory": "say offload_optimizer and offload_param",
}


def ds_configs() -> Path:
    """The folder of the engine's settings: inside an installed package, beside it in a checkout."""
    package = Path(bigtickets.__file__).parent
    inside = package / "ds_configs"
    return inside if inside.is_dir() else package.parent / "ds_configs"


def read_ds_config(execution: ExecutionSpec) -> dict[str, Any]:
    """The engine's settings: ours for the ZeRO stage, or the user's own file."""
    if execution.ds_config is None:
        stage = execution.stage
        name = f"zero{stage}_offload" if execution.offload else f"zero{stage}"
        return json.loads((ds_configs() / f"{name}.json").read_text())
    path = Path(execution.ds_config)
    try:
        config = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"execution.ds_config: {path}: not readable as JSON: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("zero_optimization", {}), dict):
        raise InputError(f"execution.ds_config: {path}: expected a JSON object of DeepSpeed's keys")
    _check(path, config, execution)
    return config


def _check(path: Path, config: dict[str, Any], execution: ExecutionSpec) -> None:
    for key in config:
        if key in STUDY_KEYS:
            raise InputError(f"{path}: {key} is the study's ({STUDY_KEYS[key]}); remove it here")
        if key not in ENGINE_KEYS:
            raise InputError(f"{path}: {key} may change a result, which no engine setting may")
    zero = config.get("zero_optimization", {})
    for key, reason in FORBIDDEN.items():
        if zero.get(key):
            raise InputError(f"{path}: zero_optimization.{key}: {reason}; remove it")
    if "auto" in _values(config):
        raise InputError(f'{path}: "auto" is for another program to fill in; write the value')
    stage = zero.get("stage", 0)
    if stage != execution.stage:
        raise InputError(
            f"{path}: zero_optimization.stage is {stage}, execution.zero is {execution.stage}; "
            "make them equal"
        )
    for key, least in (("offload_optimizer", 1), ("offload_param", 3)):
        if offload_device(config, key) and stage < least:
            raise InputError(f"{path}: zero_optimization.{key} needs ZeRO {least} or more")


def offload_device(config: dict[str, Any], key: str) -> str | None:
    """Where `offload_optimizer` or `offload_param` puts things: "cpu", "nvme", None for nowhere."""
    device = (config.get("zero_optimization", {}).get(key) or {}).get("device", "none")
    return None if device == "none" else device


def _values(value: Any) -> list[Any]:
    """All values of a JSON object that are no object themselves."""
    if isinstance(value, dict):
        return [v for item in value.values() for v in _values(item)]
    return [] if isinstance(value, list) else [value]
