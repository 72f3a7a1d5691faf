"""The training loop: a function of (seed, step), whatever the ranks, micro-batches and restarts."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bigtickets.errors import Interrupted
from bigtickets.study.spec import ExecutionSpec, TrainingSpec
from bigtickets.training import checkpoints, communication
from bigtickets.training.batches import TrainingBatches, collate, micro_batches
from bigtickets.training.dropout import MaskKey
from bigtickets.training.engine import Engine
from bigtickets.training.evaluation import model_inputs
from bigtickets.training.metrics_log import MetricsLog, read_metrics
from bigtickets.training.ranks import Ranks
from bigtickets.training.schedule import learning_rate_at
from bigtickets.training.splits import Split
from bigtickets.training.watch import paced

LOG_LINES = 50
"""Lines of metrics that a run writes, about."""


@dataclass
class Progress:
    """Where a run stands; what a checkpoint keeps beside the tensors."""

    step: int = 0
    tokens: int = 0
    """Real tokens (no padding) trained on, over all ranks."""
    examples: int = 0
    loss_sum: float = 0.0
    """Sum of the examples' losses since the last line of metrics."""
    loss_count: int = 0
    seconds: float = 0.0
    """Time spent in steps, over all attempts."""
    communication_s: float = 0.0
    """Of it, time in which this rank waited in collectives."""
    diverged: bool = False
    resumed: list[int] = field(default_factory=list)
    """Steps at which later attempts took over."""


@dataclass(frozen=True)
class Run:
    """What the loop works with."""

    engine: Engine
    split: Split
    batches: TrainingBatches
    training: TrainingSpec
    execution: ExecutionSpec
    ranks: Ranks
    mask_key: MaskKey
    attempt: Path
    """Where this attempt writes."""
    stop_asked: Callable[[], bool]
    """Whether somebody wants this process to stop."""


def train(run: Run) -> Progress:
    """Train to the end, from the newest checkpoint if there is one.

    Raises Interrupted, with a checkpoint written, when asked to stop. A loss that is not finite
    ends the run early with `diverged` set.
    """
    progress, earlier = _resume(run)
    log = MetricsLog(run.attempt, earlier) if run.ranks.first else None
    run.engine.module.train()
    saved_at = time.monotonic()
    communicated = communication.seconds() - progress.communication_s
    try:
        with paced() as alive:
            while progress.step < len(run.batches) and not progress.diverged:
                alive()
                started = time.monotonic()
                due = started - saved_at > run.execution.checkpoint_every_s
                stop, due = run.ranks.any(run.stop_asked(), due)
                if progress.step and (stop or due):
                    progress.communication_s = communication.seconds() - communicated
                    save(run, progress)
                    alive()
                    saved_at = time.monotonic()
                if stop:
                    raise Interrupted(f"stopped after step {progress.step}")
                _step(run, progress)
                progress.seconds += time.monotonic() - started
                _log(run, progress, log)
        progress.communication_s = communication.seconds() - communicated
    finally:
        if log is not None:
            log.close()
    return progress


def example_losses(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy, or squared error where labels are numbers; (B,) in float32 or finer."""
    logits_BC = logits_BC if logits_BC.dtype == torch.float64 else logits_BC.float()
    if labels_B.is_floating_point():
        return (logits_BC.squeeze(-1) - labels_B.to(logits_BC.dtype)).square()
    return functional.cross_entropy(logits_BC, labels_B, reduction="none")


def _step(run: Run, progress: Progress) -> None:
    """One optimizer step on the global batch of this step."""
    indices = run.batches.batch_at(progress.step)
    asked = run.execution.micro_batch
    size = math.ceil(len(indices) / run.ranks.world_size) if asked == "auto" else asked
    micro = micro_batches(indices, run.ranks.rank, run.ranks.world_size, size)
    total = torch.zeros((), device=run.ranks.device)
    for i, (chosen, weights) in enumerate(micro):
        batch = collate(run.split, chosen, weights, device=run.ranks.device)
        run.mask_key.set(progress.step, batch["example"])
        logits = run.engine(**model_inputs(run.engine.module, batch)).logits
        # Fillers have weight 0. The engine averages over ranks; the loss is a mean over the batch.
        loss = (example_losses(logits, batch["labels"]) * batch["weight"]).sum()
        run.engine.backward(loss * (run.ranks.world_size / len(indices)), i == len(micro) - 1)
        total += loss.detach()
    run.engine.step(learning_rate_at(progress.step, len(run.batches), run.training))
    run.ranks.sum_(total)
    progress.loss_sum += float(total)
    progress.diverged = not math.isfinite(progress.loss_sum)
    progress.loss_count += len(indices)
    progress.examples += len(indices)
    progress.tokens += int(run.split.lengths[indices].sum())
    progress.step += 1


def _log(run: Run, progress: Progress, log: MetricsLog | None) -> None:
    """A line of metrics now and then, and a look at whether the loss is still a number."""
    every = max(1, len(run.batches) // LOG_LINES)
    last = progress.diverged or progress.step == len(run.batches)
    if progress.step % every and not last:
        return
    loss = progress.loss_sum / max(progress.loss_count, 1)
    if log is not None:
        line: dict[str, Any] = {
            "step": progress.step,
            "epoch": round(run.batches.epoch_of(progress.step), 6),
            "loss": None if progress.diverged else loss,
            "learning_rate": learning_rate_at(progress.step - 1, len(run.batches), run.training),
            "examples_per_s": round(progress.examples / max(progress.seconds, 1e-9), 3),
        }
        log.add(line)
    progress.loss_sum, progress.loss_count = 0.0, 0


def save(run: Run, progress: Progress) -> None:
    """Commit a checkpoint; every rank must call it, at least one step must be done."""
    state = run.engine.state()
    if run.ranks.first:
        checkpoints.save(run.attempt, progress.step, state, vars(progress))
    else:
        state.drain()
    run.ranks.barrier()


def _resume(run: Run) -> tuple[Progress, list[dict[str, Any]]]:
    """(progress of the newest checkpoint, its lines of metrics), or a fresh start."""
    found = checkpoints.newest(run.attempt.parent) if run.ranks.first else None
    # One rank chooses for all: on a shared file system they may see different things.
    facts = run.ranks.from_first(found and [str(found.path), found.step, found.counters])
    if facts is None:
        return Progress(), []
    checkpoint = checkpoints.Checkpoint(Path(facts[0]), facts[1], facts[2])
    progress = Progress(**checkpoint.counters)
    run.engine.set_state(checkpoint.tensor, progress.step)
    progress.resumed.append(progress.step)
    lines = read_metrics(checkpoint.path.parent.parent, progress.step)
    return progress, lines
