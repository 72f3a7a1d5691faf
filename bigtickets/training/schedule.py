"""How long a run is and the learning rate of each step, as functions of the step alone."""

import math

from bigtickets.study.spec import TrainingSpec


def total_steps(training: TrainingSpec, num_examples: int) -> int:
    """Optimizer steps of a run: whole batches of each epoch, the last one may be short."""
    steps = max(1, round(training.epochs * math.ceil(num_examples / training.batch_size)))
    return steps if training.max_steps is None else min(steps, training.max_steps)


def learning_rate_at(step: int, steps: int, training: TrainingSpec) -> float:
    """Linear warm-up to the peak, then linear decay; no step has a rate of 0.

    `step` counts from 0. The usual schedules spend the first step at rate 0; ours is theirs
    moved by one step.
    """
    warm = round(training.warmup * steps)
    if step < warm:
        return training.learning_rate * (step + 1) / warm
    return training.learning_rate * (steps - step) / max(steps - warm, 1)
