"""What the importance pass costs: ours against the usual pass and against the floor.

    python benchmarks/importance.py [--layers 12] [--repetitions 5] [--out FILE]

BERT-base shapes (random weights: speed does not depend on them). Three ways over the same examples:

* ours   `ImportancePass`: frozen weights, every example's own gate gradient, both unit types
* usual  multiplicative gates in the graph, trainable weights, one |gradient| per batch
* floor  frozen weights, backward to the first layer's output projection, nothing collected

Two workloads: batches in which every row has `--length` tokens, and real sentence lengths (those of
--lengths-from, a tokenised split) where `usual` pads to `--length` and the others go through our
batches by length.

A machine's speed changes from minute to minute, so what is compared lies close together: `ours`
and `floor` follow each other on every single batch, in random order, and so does `usual` where it
has the same batches; ratios are taken within such a group. A repetition is all batches once. A
figure is each batch's median ratio over the repetitions, weighted by what the batch costs, with
its 95 % interval (bootstrap over repetitions) and the range over repetitions; once of wall time,
once of the process's CPU time, which other processes disturb less. Peak memory is the growth of a
fresh process by one pass, a process for each way: one that has run another way keeps its memory.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification

from bigtickets.tickets.importance import ImportancePass
from bigtickets.tickets.units import unit_layers
from bigtickets.training.batches import evaluation_batches
from bigtickets.training.hardware import peak_memory_gb, reset_peak_memory

CPU = torch.device("cpu")
Batch = tuple[dict[str, Tensor], Tensor]
Figure = dict[str, float]
"""median, low and high (its 95 % interval), least and most."""


def main() -> None:
    """Measure and print; JSON into --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=1, help="per repetition, padded workload")
    parser.add_argument("--examples", type=int, default=64, help="real-length workload")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--lengths-from", type=Path, help="file of one sentence per line")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "WORKLOAD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    model = bert_base(options.layers)
    lengths = real_lengths(options)
    workloads = {
        "padded": padded_workload(options),
        "real lengths": real_workload(options, lengths),
    }
    if options.peak:
        way, name = options.peak
        print(growth(WAYS[way], model, workloads[name][way]))
        return
    results = {}
    for name, workload in workloads.items():
        times = measure(model, workload, options.repetitions)
        results[name] = times | memory_ratios(name)
    facts = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "layers": options.layers,
        "mean_real_length": float(lengths.mean()),
        "repetitions": options.repetitions,
        "results": results,
    }
    for name, result in results.items():
        print(name)
        for key, figure in result.items():
            print(
                "  {:<20} {median:6.3f}  interval {low:.3f} to {high:.3f}, "
                "range {least:.3f} to {most:.3f}".format(key, **figure)
            )
    if options.out:
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


def bert_base(layers: int) -> BertForSequenceClassification:
    """BERT-base's shapes, without the dropout that a pass in evaluation mode has not either."""
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers)
    return BertForSequenceClassification._from_config(config, attn_implementation="sdpa").eval()


def real_lengths(options: argparse.Namespace) -> np.ndarray:
    """Token counts of real sentences; a log-normal like that of GLUE's SST-2 without a file."""
    if options.lengths_from is None:
        draw = np.random.default_rng(0).lognormal(2.4, 0.7, options.examples)
        return np.clip(draw.round(), 3, options.length).astype(np.int64)
    lines = options.lengths_from.read_text().splitlines()
    words = np.array([len(line.split()) for line in lines if line.strip()])
    chosen = np.random.default_rng(0).choice(words, options.examples, replace=False)
    # About 1.25 word pieces a word, and two special tokens.
    return np.clip((chosen * 1.25).round() + 2, 3, options.length).astype(np.int64)


def batch_of(lengths: np.ndarray, width: int, seed: int) -> Batch:
    """Random token ids with a padding mask, and labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, 30000, (len(lengths), width), generator=generator)
    mask = (torch.arange(width) < torch.from_numpy(lengths)[:, None]).long()
    labels = torch.randint(0, 2, (len(lengths),), generator=generator)
    return {"input_ids": ids * mask, "attention_mask": mask}, labels


def padded_workload(options: argparse.Namespace) -> dict[str, list[Batch]]:
    """The same batches for all ways: every row full."""
    full = np.full(options.batch, options.length)
    batches = [batch_of(full, options.length, seed) for seed in range(options.batches)]
    return dict.fromkeys(("ours", "usual", "floor"), batches)


def real_workload(options: argparse.Namespace, lengths: np.ndarray) -> dict[str, list[Batch]]:
    """`usual` pads each batch, in file order, to the maximum; the others batch by length."""
    usual = [
        batch_of(lengths[i : i + options.batch], options.length, i)
        for i in range(0, len(lengths), options.batch)
    ]
    ours = []
    for indices, _ in evaluation_batches(lengths, 0, 1, micro_batch=options.batch):
        chosen = lengths[indices]
        ours.append(batch_of(chosen, int(chosen.max()), int(indices[0])))
    return {"ours": ours, "usual": usual, "floor": ours}


CLOCKS = {"time": time.perf_counter, "CPU time": time.process_time}


def measure(
    model: BertForSequenceClassification, workload: dict[str, list[Batch]], repetitions: int
) -> dict[str, Figure]:
    """Ratios of times over interleaved repetitions."""
    for name, way in WAYS.items():  # warm up
        way(model, workload[name][:1])
    batches = workload["ours"]
    alike = [name for name in WAYS if workload[name] is batches]
    times: dict[str, np.ndarray] = {
        name: np.zeros((len(CLOCKS), repetitions, len(batches))) for name in WAYS
    }
    for repetition in range(repetitions):
        for i, batch in enumerate(batches):
            order = random.Random(f"{repetition} {i}").sample(alike, len(alike))
            for name in order:
                times[name][:, repetition, i] = clocked(WAYS[name], model, [batch])
        for name in WAYS.keys() - alike:
            # Batches of its own: only all of them compare with all of ours.
            times[name][:, repetition, 0] = clocked(WAYS[name], model, workload[name])
        print(f"repetition {repetition + 1} of {repetitions}", file=sys.stderr)
    same = "usual" in alike
    results = {}
    for clock, ours, usual, floor in zip(CLOCKS, *(times[way] for way in WAYS), strict=True):
        results[f"{clock} ours/floor"] = spread(ours, floor)
        results[f"{clock} usual/ours"] = spread(
            *((usual, ours) if same else (usual.sum(1, keepdims=True), ours.sum(1, keepdims=True)))
        )
    return results


def clocked(
    way: Callable, model: BertForSequenceClassification, batches: list[Batch]
) -> np.ndarray:
    """Seconds by each of CLOCKS."""
    before = np.array([clock() for clock in CLOCKS.values()])
    way(model, batches)
    return np.array([clock() for clock in CLOCKS.values()]) - before


def growth(way: Callable, model: BertForSequenceClassification, batches: list[Batch]) -> float:
    """Peak growth of this process by one pass, in GiB."""
    reset_peak_memory(CPU)
    before = peak_memory_gb(CPU)
    way(model, batches)
    return peak_memory_gb(CPU) - before


def memory_ratios(workload: str) -> dict[str, Figure]:
    """Ratios of peak growth, each way in a process of its own."""
    peaks = {}
    for way in WAYS:
        command = [sys.executable, "-W", "ignore", *sys.argv, "--peak", way, workload]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[way] = np.array([[float(result.stdout.split()[-1])]])
    return {
        "memory ours/floor": spread(peaks["ours"], peaks["floor"]),
        "memory usual/ours": spread(peaks["usual"], peaks["ours"]),
    }


def spread(a: np.ndarray, b: np.ndarray) -> Figure:
    """Ratio of a to b, each repetitions x batches, with its 95 % interval and the range."""
    ratios, weights = a / np.maximum(b, 1e-9), np.median(b, 0)

    def ratio(index: np.ndarray) -> float:
        return float(np.average(np.median(ratios[index], 0), weights=weights))

    everything = np.arange(len(ratios))
    middle = low = high = ratio(everything)
    if len(ratios) > 1:
        drawn = stats.bootstrap((everything,), ratio, method="percentile", rng=0, vectorized=False)
        low, high = map(float, drawn.confidence_interval)
    each = np.average(ratios, 1, weights)
    ends = {"least": float(each.min()), "most": float(each.max())}
    return {"median": middle, "low": low, "high": high, **ends}


def ours(model: BertForSequenceClassification, batches: list[Batch]) -> None:
    """Our pass."""
    with ImportancePass(model) as scoring:
        for inputs, labels in batches:
            logits = model(**inputs).logits
            scoring.add(cross_entropy(logits, labels, reduction="none"), torch.ones(len(labels)))
        scoring.reduce(lambda flat: None)
    scoring.scores()


def usual(model: BertForSequenceClassification, batches: list[Batch]) -> None:
    """Gates in the graph, gradients of all weights, absolute value of each batch's gradient."""
    layers = unit_layers(model)
    width = [layers[0].attention_output.in_features, layers[0].ffn_output.in_features]
    heads, neurons = (torch.ones(len(layers), size, requires_grad=True) for size in width)
    totals = [torch.zeros_like(heads), torch.zeros_like(neurons)]
    handles = []
    for i, layer in enumerate(layers):
        for module, gate in ((layer.attention_output, heads), (layer.ffn_output, neurons)):
            handles.append(module.register_forward_pre_hook(multiply(gate, i)))
    for inputs, labels in batches:
        cross_entropy(model(**inputs).logits, labels).backward()
        for total, gate in zip(totals, (heads, neurons), strict=True):
            assert gate.grad is not None
            total += gate.grad.abs()
            gate.grad = None
        model.zero_grad()
    for handle in handles:
        handle.remove()


def multiply(gate: Tensor, layer: int) -> Callable:
    """A hook that multiplies a module's input by a gate."""

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] * gate[layer], *args[1:])

    return hook


def floor(model: BertForSequenceClassification, batches: list[Batch]) -> None:
    """Forward and backward of activations alone, from where our graph starts too."""
    with frozen(model), started(unit_layers(model)[0].attention_output):
        for inputs, labels in batches:
            cross_entropy(model(**inputs).logits, labels, reduction="sum").backward()


WAYS: dict[str, Callable] = {"ours": ours, "usual": usual, "floor": floor}


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No weight gradients for a while."""
    model.requires_grad_(False)
    try:
        yield
    finally:
        model.requires_grad_(True)


@contextmanager
def started(module: nn.Module) -> Iterator[None]:
    """Let the graph begin at this module's input."""
    handle = module.register_forward_pre_hook(
        lambda _, args: (args[0].detach().requires_grad_(True), *args[1:])
    )
    try:
        yield
    finally:
        handle.remove()


if __name__ == "__main__":
    main()
