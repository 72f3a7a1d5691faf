"""What a sweep takes: `bigtickets run` against the plain way, the same trials on the same machine.

    python benchmarks/sweep.py [STUDY.yaml] [--slots 2] [--plain 4] [--out FILE]

* ours   `bigtickets run STUDY -j SLOTS` in a new folder, from its start to the end of its report
* plain  one process per trial, one at a time with all cores: load, find the scores again, multiply
         the removed units by 0, train and evaluate with every batch padded to `max_length`

The plain way takes from our run what it would have to make itself (tokens, the fine-tuned weights
that scores are found on, tickets), scores by one |gradient| per batch, which is less work than one
per example, and trains with torch alone: it is given every advantage but those that are measured.
Its trials are a random sample of --plain from each model's whole and pruned trials, at most all;
its total is each sample's mean times the number of such trials. Scores of both ways are compared:
their dropout masks differ, so they agree as two seeds do.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from importance import usual
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, pad
from transformers import PreTrainedModel

from bigtickets.analysis.table import read_table
from bigtickets.files import read_json
from bigtickets.study.folder import RunFolder
from bigtickets.study.reader import read_study
from bigtickets.study.state import read_manifest
from bigtickets.study.steps import Step
from bigtickets.tickets.surgery import masked
from bigtickets.tickets.ticket import Ticket
from bigtickets.training.batches import collate, training_batches
from bigtickets.training.evaluation import model_inputs
from bigtickets.training.models import load_model
from bigtickets.training.schedule import learning_rate_at, total_steps
from bigtickets.training.splits import Split, load_split, subset

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


def main() -> None:
    """Measure and print; JSON into --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--plain", type=int, default=4, help="plain trials of each kind")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary one)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--trial", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trial:
        print(plain_trial(RunFolder(options.folder), options.trial))
        return
    with tempfile.TemporaryDirectory(prefix="sweep-", dir=options.folder) as name:
        folder = RunFolder(Path(name) / "run")
        facts = measure(folder, options)
    print(json.dumps(facts, indent=1))
    if options.out:
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


def measure(folder: RunFolder, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways, and how they compare."""
    started = time.monotonic()
    command = [sys.executable, "-m", "bigtickets", "run", str(options.study)]
    command += ["--out", str(folder.root), "-j", str(options.slots)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    ours_s = time.monotonic() - started
    table = read_table(folder)
    strata = [sample(folder, steps, options.plain) for steps in kinds_of_trials(folder)]
    plain_s = sum(stratum["trials"] * float(np.mean(stratum["seconds"])) for stratum in strata)
    by_id = table.set_index("id")["score"]
    differences = [s - by_id[i] for stratum in strata for i, s in stratum["scores"].items()]
    slots_s = options.slots * ours_s
    return {
        "study": options.study.name,
        "cores": os.cpu_count(),
        "slots": options.slots,
        "trials": len(table),
        "ours_s": round(ours_s, 1),
        "training_steps_share": round(float(table["train_s"].sum()) / slots_s, 3),
        "work_share": round(work_s(folder) / slots_s, 3),
        "plain_s": round(plain_s, 1),
        "plain_over_ours": round(plain_s / ours_s, 2),
        "mean_score_difference": round(float(np.mean(differences)), 4),
        "largest_score_difference": round(float(np.abs(differences).max()), 4),
        "plain": strata,
    }


def work_s(folder: RunFolder) -> float:
    """Seconds of loading, training, scoring and evaluating over all steps: no start, no idling."""
    total = 0.0
    for step in read_manifest(folder):
        if step.step in ("trial", "scores"):
            timings = read_json(folder.result(step.step, step.id))["timings"]
            parts = ("load_s", "train_s", "eval_s", "score_s")
            total += sum(timings.get(part, 0.0) for part in parts)
    return total


def kinds_of_trials(folder: RunFolder) -> list[list[Step]]:
    """Trials that take alike: whole or pruned, of one model."""
    groups: dict[tuple[str, bool], list[Step]] = {}
    for step in read_manifest(folder):
        if step.step == "trial":
            groups.setdefault((step.model, step.ticket is None), []).append(step)
    return list(groups.values())


def sample(folder: RunFolder, steps: list[Step], count: int) -> dict[str, Any]:
    """Some of these trials, the plain way: seconds and scores of each."""
    seconds, scores = [], {}
    for step in random.Random(0).sample(steps, min(count, len(steps))):
        command = [sys.executable, __file__, "--folder", str(folder.root), "--trial", step.id]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds.append(round(time.monotonic() - started, 2))
        if done.returncode:
            raise RuntimeError(done.stderr)
        scores[step.id] = float(done.stdout.split()[-1])
    first = steps[0]
    name = f"{first.model}, {'whole' if first.ticket is None else 'pruned'}"
    return {"kind": name, "trials": len(steps), "seconds": seconds, "scores": scores}


def plain_trial(folder: RunFolder, trial: str) -> float:
    """One trial in a process of its own; its accuracy."""
    study = read_study(folder.study_yaml)
    steps = {step.id: step for step in read_manifest(folder)}
    step = steps[trial]
    model = next(m for m in study.models if m.name == step.model)
    data = folder.data(next(i for i in step.needs if steps[i].step == "data"))
    train, validation = load_split(data, "train"), load_split(data, "validation")
    chosen = subset(train.labels, fraction=step.data_fraction)
    length, size = model.training.max_length, model.training.batch_size
    network = load_model(model, train.outputs, step.seed or 0)
    kept = None
    if step.ticket:
        scored = steps[steps[step.ticket].needs[0]]
        dense = load_model(model, train.outputs, 0)
        dense.load_state_dict(load_file(folder.dense_weights(scored.dense)), strict=False)
        usual(dense, list(padded(train, np.array_split(chosen, -(-len(chosen) // size)), length)))
        kept = Ticket.from_json(read_json(folder.ticket(step.ticket))).kept
    with masked(network, kept) if kept else nullcontext():
        count = total_steps(model.training, len(chosen))
        batches = training_batches(train.lengths, size, count, step.seed or 0, examples=chosen)
        fine_tune(network, padded(train, batches, length), count, model.training)
        return accuracy(network, validation, length, size)


def padded(split: Split, batches: Any, length: int) -> Iterator[Batch]:
    """Every batch as wide as the longest that there may be."""
    for indices in batches:
        batch = collate(split, indices)
        more = (0, length - batch["input_ids"].shape[1])
        inputs = {
            k: pad(v, more, value=split.pad_id if k == "input_ids" else 0)
            for k, v in batch.items()
            if v.dim() == 2
        }
        yield inputs, batch["labels"]


def fine_tune(
    network: PreTrainedModel, batches: Iterator[Batch], steps: int, training: Any
) -> None:
    """AdamW, warm-up and linear decay, clipped gradients."""
    network.train()
    rate = training.learning_rate
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=training.weight_decay)
    for step, (inputs, labels) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, training)
        cross_entropy(network(**model_inputs(network, inputs)).logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def accuracy(network: PreTrainedModel, split: Split, length: int, size: int) -> float:
    """Share of right answers."""
    network.eval()
    right = 0
    order = np.array_split(np.arange(len(split)), -(-len(split) // size))
    for inputs, labels in padded(split, order, length):
        logits = network(**model_inputs(network, inputs)).logits
        right += int((logits.argmax(-1) == labels).sum())
    return right / len(split)


if __name__ == "__main__":
    main()
