"""The DeepSpeed engine: the only module that imports deepspeed.

`ds_configs/` says what the engine does; batch sizes, learning rate and precision are the study's
and are put in here. A run's state is read and written by parameter name, whole and in float32, so
a checkpoint does not depend on the ZeRO stage or on the number of ranks that made it.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bigtickets
from bigtickets.errors import InputError
from bigtickets.study.spec import ExecutionSpec, TrainingSpec
from bigtickets.training.ranks import Ranks

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
MOMENTS = ("exp_avg", "exp_avg_sq")


def computes_in_bf16(execution: ExecutionSpec, device: torch.device) -> bool:
    """bf16 only where the hardware computes in it; everything else is float32."""
    wanted = execution.precision != "fp32"
    return wanted and device.type == "cuda" and torch.cuda.is_bf16_supported()


def ds_configs() -> Path:
    """The folder of the engine's settings: inside an installed package, beside it in a checkout."""
    package = Path(bigtickets.__file__).parent
    inside = package / "ds_configs"
    return inside if inside.is_dir() else package.parent / "ds_configs"


def read_ds_config(execution: ExecutionSpec) -> dict[str, Any]:
    """The engine's settings: ours for the ZeRO stage, or the user's own file."""
    if execution.ds_config is None:
        return json.loads((ds_configs() / f"zero{execution.stage}.json").read_text())
    path = Path(execution.ds_config)
    try:
        config = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"execution.ds_config: {path}: not readable as JSON: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"execution.ds_config: {path}: expected a JSON object")
    for key in config:
        if key in STUDY_KEYS:
            raise InputError(f"{path}: {key} is the study's ({STUDY_KEYS[key]}); remove it here")
        if key not in ENGINE_KEYS:
            raise InputError(f"{path}: {key} may change a result, which no engine setting may")
    stage = config.get("zero_optimization", {}).get("stage", 0)
    if stage != execution.zero:
        raise InputError(
            f"{path}: zero_optimization.stage is {stage}, execution.zero is {execution.zero}; "
            "make them equal"
        )
    return config


class Engine:
    """One model being trained: forward, backward, step, and its whole state by name."""

    def __init__(
        self, model: nn.Module, training: TrainingSpec, execution: ExecutionSpec, ranks: Ranks
    ) -> None:
        deepspeed = _deepspeed(ranks)
        bf16 = computes_in_bf16(execution, ranks.device)
        config = {
            **read_ds_config(execution),
            # The loop says itself where a step ends (see `backward`): batches may be uneven.
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": training.max_grad_norm,
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},
        }
        self.stage = execution.stage
        self.ranks = ranks
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=model.to(ranks.device),
            optimizer=_adamw(model, training, ranks.device),
            config=config,
            dist_init_required=False,
        )
        if self.stage == 0 and ranks.world_size == 1:
            # Copying all gradients into buckets to add nobody's to them costs a tenth of a step.
            self._engine.enable_backward_allreduce = False

    @property
    def module(self) -> nn.Module:
        """The model itself."""
        return self._engine.module

    def __call__(self, **batch: Tensor) -> Any:
        """Forward in the precision of the run."""
        return self._engine(**batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate the gradient; ranks exchange theirs at the `last` micro-batch of a step.

        Ranks' gradients are averaged, so `loss` is this rank's share times the world size.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> None:
        """One optimizer step with the gradient accumulated so far."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()

    def close(self) -> None:
        """Free what the engine holds; the process goes on with another model."""
        self._engine.destroy()
        del self._engine, self._optimizer

    def weights(self) -> dict[str, Tensor]:
        """All weights by name, whole, float32, on the CPU. Every rank must call it."""
        state = self.state()
        return {k.removeprefix("weight."): v for k, v in state.items() if k.startswith("weight.")}

    def state(self) -> dict[str, Tensor]:
        """Weights and both Adam moments, whole, float32, on the CPU. Every rank must call it."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self.stage > 0:
            self._link_moments()
        tensors = {}
        for name, parameter in self.module.named_parameters():
            if self.stage == 0:
                state = self._optimizer.state[parameter]
                parts = {"weight": parameter.detach(), **{m: state[m] for m in MOMENTS}}
            else:
                parts = {"weight": safe_get_full_fp32_param(parameter)}
                parts |= {m: safe_get_full_optimizer_state(parameter, m) for m in MOMENTS}
            for part, tensor in parts.items():
                tensors[f"{part}.{name}"] = tensor.to("cpu", torch.float32, copy=True).contiguous()
        return tensors

    def set_state(self, tensors: dict[str, Tensor], steps_done: int) -> None:
        """Put back what `state` gave, from a run that had done `steps_done` steps."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if self.stage > 0:
            self._link_moments()
        for name, parameter in self.module.named_parameters():
            if self.stage == 0:
                parameter.data.copy_(tensors[f"weight.{name}"])
                moments = {m: tensors[f"{m}.{name}"].to(parameter.device) for m in MOMENTS}
                self._optimizer.state[parameter] = {"step": _step_tensor(steps_done), **moments}
                continue
            safe_set_full_fp32_param(parameter, tensors[f"weight.{name}"])
            for m in MOMENTS:
                safe_set_full_optimizer_state(parameter, tensors[f"{m}.{name}"], m)
        if self.stage > 0:
            for state in self._optimizer.optimizer.state.values():
                state["step"] = _step_tensor(steps_done)

    def _link_moments(self) -> None:
        """Make DeepSpeed's by-name view of the moments whole, before the first step too.

        Stages 1 and 2 build that view after the first group's first step, when the other groups
        have no moments yet, and never again.
        """
        sharded = self._optimizer
        shards = getattr(sharded, "fp32_partitioned_groups_flat", None)
        for shard in shards or sharded.single_partition_of_fp32_groups:
            state = sharded.optimizer.state[shard]
            if not state:
                state.update({m: torch.zeros_like(shard.data) for m in MOMENTS})
                state["step"] = _step_tensor(0)
        if hasattr(sharded, "_lazy_init_hp_params_optimizer_state"):
            sharded._hp_optimizer_states_linked = False
            sharded._lazy_init_hp_params_optimizer_state()


def _step_tensor(steps: int) -> Tensor:
    return torch.tensor(float(steps))


def _adamw(model: nn.Module, training: TrainingSpec, device: torch.device) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    parameters = list(model.parameters())
    # At ZeRO-3 a partitioned weight is flat; its whole shape stands in ds_shape.
    matrix = [len(getattr(p, "ds_shape", p.shape)) > 1 for p in parameters]
    groups = [
        {
            "params": [p for p, m in zip(parameters, matrix, strict=True) if m],
            "weight_decay": training.weight_decay,
        },
        {
            "params": [p for p, m in zip(parameters, matrix, strict=True) if not m],
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(
        groups,
        lr=training.learning_rate,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_epsilon,
        fused=True,
    )


def _deepspeed(ranks: Ranks) -> Any:
    """deepspeed, quiet, and without building an operator that training does not use."""
    if ranks.device.type == "cpu":
        # Spares a search for accelerators, and its warning.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if ranks.device.type == "cpu":
        # init_distributed would compile a shared-memory operator (30 s, needs g++ and ninja) that
        # only inference uses. The table is private: where it is gone, the build happens.
        ops = getattr(deepspeed.ops, "__compatible_ops__", {})
        if "deepspeed_shm_comm" in ops:
            ops["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    return deepspeed
