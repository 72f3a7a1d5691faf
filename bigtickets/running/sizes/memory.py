"""How much memory one process takes in each way of sharding a model.

Arithmetic on a model's config; nothing is loaded. What is counted is what `training/engine.py`
makes DeepSpeed allocate: weights, gradients and both Adam moments in float32 (`bf16` is autocast
over them), the engine's buffers, and activations.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bigtickets.running.sizes.activations import (
    CPU_TOKENS,
    FLOAT,
    HALF,
    cast_weights,
    micro_batch,
    scoring_bytes,
    training_bytes,
)
from bigtickets.study.spec import ExecutionSpec, TrainingSpec
from bigtickets.tickets.families import Shapes, model_parameters, shapes_of

GIB = 2**30

# Elements, as ds_configs/ sets them (a test compares).
BUCKET = 50_000_000
"""Gradients that are exchanged together."""
AHEAD = 10_000_000
"""Weights that ZeRO-3 gathers before they are needed."""
LIVE = 50_000_000
"""Weights that ZeRO-3 has whole at a time, or the largest one if that is more."""
SUB_GROUP = 100_000_000
"""Weights that ZeRO-3 updates at a time: their gradients are copied for it."""
ALLREDUCE = 500_000_000
"""Gradients that DeepSpeed joins for an exchange without ZeRO; it has no setting."""

GPU_CONSTANT = round(1.5 * GIB)
"""CUDA's context, workspaces of cuBLAS and NCCL, what the allocator loses. Not measured."""
CPU_CONSTANT = round(0.6 * GIB)
"""A process that has torch, transformers and deepspeed imported and no model yet."""


@dataclass(frozen=True)
class Layout:
    """One way of running a trial."""

    zero: int = 0
    offload: bool = False
    processes: int = 1

    @property
    def name(self) -> str:
        """As in the tables."""
        return f"{self.zero}+offload" if self.offload else str(self.zero)


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    """Copies that the engine makes to exchange gradients and to gather weights."""
    activations: int
    scoring: int
    """The whole importance pass, with the smallest batches it makes."""
    peak: int
    """The largest sum at one time, training or scoring, with the device's constant."""
    host: int
    """In the machine's memory beside the device's: what is offloaded, and pre-trained weights
    while they are read and kept for the next trial."""


def memory_of(
    config: Mapping[str, Any],
    training: TrainingSpec,
    execution: ExecutionSpec,
    layout: Layout,
    cpu: bool = False,
) -> Memory:
    """What one process needs; `execution` says all but the layout.

    Training is at its fullest in one of four phases: when the engine is built, at the end of the
    forward pass (all activations), of the backward pass (all gradients: they grow while
    activations go), or in the optimizer's step. On a CPU the allocator keeps what activations
    took, so they count to the end, and there is no bf16.
    """
    execution = dataclasses.replace(execution, precision="fp32") if cpu else execution
    shapes, bf16 = shapes_of(config), execution.precision != "fp32"
    parameters = model_parameters(shapes, 2)
    held = _held(layout, parameters)
    size = micro_batch(training, execution, layout.processes)
    activations = training_bytes(config, training, execution, size)
    if bf16 and layout.zero < 3:  # ZeRO-3's own Linear casts anew each time
        activations += cast_weights(shapes)
    exchange = _exchange(layout, parameters, cpu)
    gathered = _gathered(layout, shapes, parameters, bf16)
    several = size * layout.processes < training.batch_size
    # A worker keeps the pre-trained weights that it has read: the next trial starts from them.
    cached = FLOAT * parameters if layout.zero < 3 else 0
    resident, later = held.weights + held.optimizer, activations if cpu else 0
    phases = (
        held.build,
        resident + gathered + activations + (held.gradients if several else 0),
        resident + gathered + held.gradients + exchange + later,
        # Gradients that were exchanged together still lie in their bucket.
        resident
        + held.gradients
        + held.step
        + later
        + (exchange // 2 if layout.zero in (1, 2) else 0),
    )
    scoring = _scored_weights(shapes, layout, bf16) + gathered
    tokens = _scored_tokens(training, execution, cpu)
    scoring += scoring_bytes(config, training.max_length, execution, tokens)
    constant = CPU_CONSTANT + held.host + cached if cpu else GPU_CONSTANT
    return Memory(
        weights=held.weights,
        gradients=held.gradients,
        optimizer=held.optimizer,
        buffers=exchange + gathered,
        activations=activations,
        scoring=scoring + (cached if cpu else 0),
        peak=max(*phases, scoring) + constant,
        host=0 if cpu else held.host + 2 * cached,
    )


@dataclass(frozen=True)
class _Held:
    """What stays from step to step, and what passes at the two ends, in bytes."""

    weights: int
    gradients: int
    optimizer: int
    build: int
    """When the engine is built."""
    step: int = 0
    """Copies of gradients in the optimizer's step."""
    host: int = 0


def _held(layout: Layout, parameters: int) -> _Held:
    """Stages 1 and 2 update a copy of their share of the weights though those are float32 too.

    At ZeRO-3 weights are held once.
    """
    whole = FLOAT * parameters
    shard = -(-whole // layout.processes)
    match layout.zero, layout.offload:
        case 0, _:
            return _Held(whole, whole, 2 * whole, build=whole)
        case 1, _:
            return _Held(whole, whole, 3 * shard, build=2 * whole + shard, step=shard)
        case 2, False:
            return _Held(whole, shard, 3 * shard, build=2 * whole + shard, step=shard)
        case 2, True:
            # Host: moments, the copy, gradients, the buffer through which weights go back.
            return _Held(whole, 0, 0, build=2 * whole, host=5 * shard)
        case _, False:
            step = min(shard, FLOAT * SUB_GROUP)
            # When it is built, a copy of the weights passes (`training.engine` drops it).
            return _Held(shard, shard, 2 * shard, build=3 * shard, step=step)
        case _:
            # Host: weights, moments, gradients as they come in and as the step takes them.
            return _Held(0, 0, 0, build=0, host=5 * shard)


def _exchange(layout: Layout, parameters: int, cpu: bool) -> int:
    """The engine's gradient bucket and the copies of it that are being exchanged."""
    if layout.zero == 0:
        return FLOAT * min(parameters, ALLREDUCE) if layout.processes > 1 else 0
    # Memory that is taken but not touched is not used on a CPU.
    bucket = FLOAT * (min(BUCKET, parameters) if cpu else BUCKET)
    # gloo has no reduce-scatter of its own and makes one more copy.
    return bucket * (3 if cpu and layout.zero == 3 else 2)


def _gathered(layout: Layout, shapes: Shapes, parameters: int, bf16: bool) -> int:
    """Whole weights that ZeRO-3 holds for a while, and those that are on their way."""
    if layout.zero < 3:
        return 0
    largest = max(shapes.vocab * shapes.embedding, shapes.hidden * shapes.neurons)
    held = min(parameters, max(LIVE, largest))
    return (HALF if bf16 else FLOAT) * (held + min(parameters, AHEAD))


def _scored_tokens(training: TrainingSpec, execution: ExecutionSpec, cpu: bool) -> int:
    """The least that the pass works with: on a GPU its batches are cut to what is free."""
    if execution.micro_batch != "auto":
        return execution.micro_batch * training.max_length
    return max(training.max_length, CPU_TOKENS if cpu else 0)


def _scored_weights(shapes: Shapes, layout: Layout, bf16: bool) -> int:
    """The importance pass shards them at ZeRO-3 only."""
    whole = FLOAT * model_parameters(shapes, 2)
    if layout.zero == 3:
        return -(-whole // layout.processes)
    return whole + (cast_weights(shapes) if bf16 else 0)
