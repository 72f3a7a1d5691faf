"""The DeepSpeed engine: the only module that imports deepspeed.

`ds_configs/` says what the engine does; batch sizes, learning rate and precision are the study's
and are put in here. A run's state is read and written by parameter name, whole and in float32, so
a checkpoint does not depend on the ZeRO stage or on the number of ranks that made it.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from bigtickets.study.spec import ExecutionSpec, TrainingSpec
from bigtickets.training.hollow import parameter_owners, replace_parameter
from bigtickets.training.models import Values
from bigtickets.training.ranks import Ranks
from bigtickets.training.settings import read_ds_config
from bigtickets.training.tensor_files import Stream

MOMENTS = ("exp_avg", "exp_avg_sq")
PARTS = ("weight", *MOMENTS)
LINEAR = functional.linear
RELEASE = "_PartitionedParameterCoordinator__params_to_release"


def computes_in_bf16(execution: ExecutionSpec, device: torch.device) -> bool:
    """bf16 only where the hardware computes in it; everything else is float32."""
    wanted = execution.precision != "fp32"
    return wanted and device.type == "cuda" and torch.cuda.is_bf16_supported()


class Engine:
    """One model being trained: forward, backward, step, and its whole state by name."""

    def __init__(
        self,
        model: nn.Module,
        training: TrainingSpec,
        execution: ExecutionSpec,
        ranks: Ranks,
        values: Values | None = None,
    ) -> None:
        """`values`: the weights of a hollow model, which are shared out over the ranks."""
        deepspeed = _deepspeed(ranks)
        bf16 = computes_in_bf16(execution, ranks.device)
        config = _config(execution) | {
            "gradient_clipping": training.max_grad_norm,
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},
        }
        self.stage = execution.stage
        self.ranks = ranks
        if values is not None:
            _shard(model, values, config, ranks)
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=model.to(ranks.device),
            optimizer=_adamw(model, training, ranks.device),
            config=config,
            dist_init_required=False,
        )
        if self.stage == 3:
            _share_weights(self._optimizer)
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
        _tidy()

    def weights(self) -> Stream:
        """All weights by name, whole, float32. Every rank must take them all."""
        shapes = {name: _shape(p) for name, p in self.module.named_parameters()}
        return Stream(shapes, ((n, self._part(p, "weight")) for n, p in self._named()))

    def state(self) -> Stream:
        """Weights (`weight.<name>`) and both Adam moments, as `weights`."""
        if self.stage > 0:
            self._link_moments()
        parts = [(f"{part}.{n}", p, part) for n, p in self._named() for part in PARTS]
        shapes = {name: _shape(p) for name, p, _ in parts}
        return Stream(shapes, ((name, self._part(p, part)) for name, p, part in parts))

    def set_state(self, read: Callable[[str], Tensor], steps_done: int) -> None:
        """Put back what `state` gave, by name, from a run that had done `steps_done` steps."""
        if self.stage > 0:
            self._link_moments()
        for name, parameter in self._named():
            values = {part: read(f"{part}.{name}") for part in PARTS}
            if self.stage == 0:
                parameter.data.copy_(values.pop("weight"))
                moments = {m: value.to(parameter.device) for m, value in values.items()}
                self._optimizer.state[parameter] = {"step": _step_tensor(steps_done), **moments}
            elif self.stage == 3:
                self._set_own_part(parameter, values)
            else:
                _set_whole(parameter, values)
        if self.stage in (1, 2):
            self._optimizer.update_lp_params()
        if self.stage > 0:
            for state in self._optimizer.optimizer.state.values():
                state["step"] = _step_tensor(steps_done)

    def _set_own_part(self, parameter: Any, values: dict[str, Tensor]) -> None:
        """At ZeRO-3: what this rank keeps of a parameter, of which the last may be filled up.

        DeepSpeed's way for whole values fails where the ranks' parts are not equal, and leaves the
        weights that the next forward reads as they were.
        """
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        size = parameter.ds_tensor.numel()
        start = self.ranks.rank * size
        for part, value in values.items():
            filled = functional.pad(
                value.flatten(), (0, size * self.ranks.world_size - value.numel())
            )
            own = filled.narrow(0, start, size)
            if part == "weight":
                safe_set_local_fp32_param(parameter, own)
                parameter.ds_tensor.data.copy_(own)
            else:
                safe_set_local_optimizer_state(parameter, own, part)

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.module.named_parameters())

    def _part(self, parameter: nn.Parameter, part: str) -> Tensor:
        """A parameter or one of its moments, gathered; whole on every rank."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self.stage == 0:
            found = parameter if part == "weight" else self._optimizer.state[parameter][part]
        elif part == "weight":
            found = safe_get_full_fp32_param(parameter)
        else:
            found = safe_get_full_optimizer_state(parameter, part)
        return found.detach().to("cpu", torch.float32)

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


@contextmanager
def scoring_network(
    network: PreTrainedModel, values: Values | None, execution: ExecutionSpec, ranks: Ranks
) -> Iterator[PreTrainedModel]:
    """The network where an importance pass can run it; sharded if it is hollow.

    Its weights are frozen: no gradients, no optimizer, only activations' gradients. Forwards go
    through the network itself and backwards through the loss, not through an engine.
    """
    network.requires_grad_(False)
    if computes_in_bf16(execution, ranks.device):
        narrow(network)
    if values is None:
        network.to(ranks.device)  # type: ignore[arg-type]
        yield network
        return
    deepspeed = _deepspeed(ranks)
    config = _config(execution)
    config["zero_optimization"].pop("offload_optimizer", None)
    _shard(network, values, config, ranks)
    engine, *_ = deepspeed.initialize(
        model=network.to(ranks.device),  # type: ignore[arg-type]
        config=config,
        dist_init_required=False,
    )
    try:
        yield network
    finally:
        engine.destroy()
        _tidy()


def narrow(network: nn.Module) -> None:
    """Keep the weights of matrix products in bf16: what autocast would make of them each time.

    So they take half the memory and the results stay what they are, bit for bit.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.to(torch.bfloat16)


def _config(execution: ExecutionSpec) -> dict[str, Any]:
    return {
        **read_ds_config(execution),
        # The loop says itself where a step ends (see `backward`): batches may be uneven.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
    }


def _shard(network: nn.Module, values: Values, config: dict[str, Any], ranks: Ranks) -> None:
    """Share out a hollow network's weights, one after the other: no rank ever holds all.

    Only the first rank takes `values`; DeepSpeed broadcasts each, and each rank keeps its part.
    """
    from deepspeed import zero

    owners = parameter_owners(network)
    done: nn.Parameter | None = None
    for name, hollow in sorted(network.named_parameters()):
        value = torch.empty(hollow.shape)
        if ranks.first:
            given, value = next(values)
            if (given, value.shape) != (name, hollow.shape):
                raise ValueError(f"{given} {tuple(value.shape)} came in the place of {name}")
        parameter = nn.Parameter(value.to(ranks.device, hollow.dtype))
        replace_parameter(owners[name], parameter)
        if done is None:
            zero.Init(module=nn.ParameterList([parameter]), config_dict_or_path=config)
        else:
            done.convert_to_zero_parameters(param_list=[parameter])  # type: ignore[attr-defined]
        done = parameter


def _share_weights(optimizer: Any) -> None:
    """Let a ZeRO-3 optimizer update the shards that forwards gather, not a copy of them.

    DeepSpeed means to do so where both are float32, but it compares a device with the name of one,
    which never are equal.
    """
    flat = optimizer.fp16_partitioned_groups_flat, optimizer.fp32_partitioned_groups_flat
    for gathered, updated in zip(*flat, strict=True):
        # Offloaded parts may be on another device, or on disk and empty here.
        if gathered is not None and _kind(gathered) == _kind(updated):
            updated.data = gathered.data


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device


def _tidy() -> None:
    """Undo what ZeRO-3 leaves in the process, in which other trials follow.

    Two of its private tables only grow, and with them every model that there ever was.
    """
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    functional.linear = LINEAR  # it has put its own there
    getattr(parameter_offload, "FWD_MODULE_STACK", []).clear()
    # The other remembers, for the class, what to release after which module of which engine.
    release = getattr(PartitionedParameterCoordinator, RELEASE, None)
    for cell in getattr(release, "__closure__", None) or ():
        if hasattr(cell.cell_contents, "cache_clear"):
            cell.cell_contents.cache_clear()


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Of the whole parameter: at ZeRO-3 it is flat or empty."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _set_whole(parameter: nn.Parameter, values: dict[str, Tensor]) -> None:
    """At ZeRO-1 and 2: DeepSpeed takes this rank's part of each."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    for part, value in values.items():
        if part == "weight":
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, part)


def _step_tensor(steps: int) -> Tensor:
    return torch.tensor(float(steps))


def _adamw(model: nn.Module, training: TrainingSpec, device: torch.device) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    parameters = list(model.parameters())
    matrix = [len(_shape(p)) > 1 for p in parameters]
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
