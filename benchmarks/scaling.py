"""What the importance pass says over the network, and how it scales, against the usual pass.

    python benchmarks/scaling.py --glue DIR [--layers 12] [--repetitions 5] [--out FILE]

BERT-base shapes (random weights), batches with the lengths of a real GLUE task: DIR holds
`<task>/train-00000-of-00001.parquet`, as on the Hub. Word pieces are counted as 1.25 a word and
two, since no tokenizer is at hand; neither bytes nor the ratio depend on it.

* ours   `ImportancePass`: one sum over ranks at the end; and on the way about a thousand flags at
         most (shall all stop?), however many batches there are, which are added by hand
* usual  `DistributedDataParallel`, multiplicative gates, weights that want gradients

Bytes are those of the tensors that a rank hands to collectives (what is gathered, for a gather),
seen where torch dispatches them to the process group, DDP's and DeepSpeed's own included. They are
counted on two numbers of batches: what does not grow is the pass's, the rest is each batch's. The
bytes for the whole task follow from its number of batches. Times are of groups of 1, 2 and 4
processes with one thread each, started in random order within every repetition; efficiency is
throughput over that of one process times the cores that so many processes can have.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from importance import Figure, batch_of, bert_base, multiply, spread
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import BertForSequenceClassification

from bigtickets.running.steps.scoring import STOP_CHECKS
from bigtickets.study.spec import ExecutionSpec, TrainingSpec
from bigtickets.tickets.importance import ImportancePass
from bigtickets.tickets.units import unit_layers
from bigtickets.training.batches import evaluation_batches
from bigtickets.training.engine import Engine
from bigtickets.training.hardware import peak_memory_gb, reset_peak_memory
from bigtickets.training.ranks import Ranks, process_group

COLUMNS = {
    "sst2": ["sentence"],
    "cola": ["sentence"],
    "rte": ["sentence1", "sentence2"],
    "mrpc": ["sentence1", "sentence2"],
    "stsb": ["sentence1", "sentence2"],
}
COUNTED = (2, 4)
"""Batches of each rank in the two passes whose bytes are compared."""
STAGES = (0, 1, 2, 3)
FLAGS_BYTES = 2 * STOP_CHECKS * 4
"""Of the flags of one pass, at most."""


def main() -> None:
    """Measure and print; JSON into --out."""
    options = parse()
    lengths = task_lengths(options)
    if options.group:
        with process_group() as ranks:
            result = GROUPS[options.group](options, ranks, lengths)
            if ranks.first:
                options.report.write_text(json.dumps(result))
        return
    facts = {
        "task": options.task,
        "task_examples": len(lengths),
        "mean_length": round(float(lengths.mean()), 2),
        "layers": options.layers,
        "batch_per_rank": options.batch,
        "torch": torch.__version__,
        "cores": cores(),
        "traffic": traffic(options, len(lengths)),
        "time": times(options),
    }
    print(json.dumps(facts, indent=1))
    if options.out:
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """The command line; a group's processes get the same and what they are to do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", type=Path, required=True, help="folder of GLUE's parquet files")
    parser.add_argument("--task", choices=COLUMNS, default="sst2")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8, help="examples of a batch of one rank")
    parser.add_argument("--examples", type=int, default=128, help="of a timed pass, over all ranks")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--group", choices=GROUPS, help=argparse.SUPPRESS)
    parser.add_argument("--stage", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def task_lengths(options: argparse.Namespace) -> np.ndarray:
    """Tokens of every training example of the task."""
    path = options.glue / options.task / "train-00000-of-00001.parquet"
    texts = pd.read_parquet(path, columns=COLUMNS[options.task])
    words = sum(texts[c].str.split().str.len().to_numpy() for c in COLUMNS[options.task])
    return np.clip((words * 1.25).round() + 1 + len(texts.columns), 3, 128).astype(np.int64)


def launch(processes: int, group: str, stage: int = 0) -> Any:
    """What the first rank of such a group reports."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", str(processes), *sys.argv, "--group", group]
        command += ["--stage", str(stage), "--report", str(report)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
        return json.loads(report.read_text())


def traffic(options: argparse.Namespace, examples: int) -> dict[str, Any]:
    """Bytes and peak memory of both passes, two ranks, at each ZeRO stage."""
    found = {f"ours, ZeRO {stage}": launch(2, "ours", stage) for stage in STAGES}
    found["usual, DDP"] = launch(2, "usual")
    batches = -(-examples // (2 * options.batch))
    for result in found.values():
        result["bytes_whole_task"] = result["bytes_once"] + result["bytes_per_batch"] * batches
    usual = found["usual, DDP"]["bytes_whole_task"]
    for result in found.values():
        result["usual_over_this_whole_task"] = round(usual / result["bytes_whole_task"], 1)
    return {"ranks": 2, "batches_whole_task": batches, **found}


def times(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a pass over the same examples, and efficiency, by way and number of processes."""
    seconds: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    order = list(options.processes)
    for repetition in range(options.repetitions):
        random.Random(repetition).shuffle(order)
        for processes in order:
            for way, taken_s in launch(processes, "time").items():
                seconds[way].setdefault(processes, []).append(taken_s)
    return {
        "examples": options.examples,
        "repetitions": options.repetitions,
        "seconds": seconds,
        "efficiency": {way: efficiency(found) for way, found in seconds.items()},
    }


def efficiency(seconds: dict[int, list[float]]) -> dict[int, Figure]:
    """By number of processes, against one of them in the same repetition."""
    alone = seconds.get(1, [])
    return {
        p: spread(alone, [taken_s * min(p, cores()) for taken_s in taken])
        for p, taken in sorted(seconds.items())
        if p > 1 and alone
    }


def count_ours(options: argparse.Namespace, ranks: Ranks, lengths: np.ndarray) -> dict[str, Any]:
    """Traffic of our pass at a ZeRO stage."""
    execution = ExecutionSpec(zero=options.stage, precision="fp32")
    engine = Engine(bert_base(options.layers), TrainingSpec(), execution, ranks)
    result = counted(options, ranks, lengths, lambda b: ours(engine.module, b, ranks))
    return {**result, "bytes_once": result["bytes_once"] + FLAGS_BYTES}


def count_usual(options: argparse.Namespace, ranks: Ranks, lengths: np.ndarray) -> dict[str, Any]:
    """Traffic of the usual pass."""
    model = DistributedDataParallel(bert_base(options.layers))
    return counted(options, ranks, lengths, lambda b: usual(model, b, ranks))


def counted(
    options: argparse.Namespace, ranks: Ranks, lengths: np.ndarray, way: Callable
) -> dict[str, Any]:
    """What a pass hands to collectives: once, and for each of its batches."""
    way(batches(lengths, options.batch * ranks.world_size, options, ranks))  # DDP, ZeRO-3: prepare
    reset_peak_memory(ranks.device)
    few, many = (
        bytes_of(way, batches(lengths, n * options.batch * ranks.world_size, options, ranks))
        for n in COUNTED
    )
    per_batch = (many.total() - few.total()) / (COUNTED[1] - COUNTED[0])
    return {
        "bytes_once": round(few.total() - COUNTED[0] * per_batch),
        "bytes_per_batch": round(per_batch),
        f"collectives_of_{COUNTED[0]}_batches": dict(few),
        f"collectives_of_{COUNTED[1]}_batches": dict(many),
        "peak_memory_gb": round(peak_memory_gb(ranks.device), 3),
    }


def time_group(options: argparse.Namespace, ranks: Ranks, lengths: np.ndarray) -> dict[str, float]:
    """Seconds of each way, once, after a warm-up."""
    models = {"ours": bert_base(options.layers)}
    models["usual"] = DistributedDataParallel(bert_base(options.layers))
    work = batches(lengths, options.examples, options, ranks)
    taken = {}
    for way in random.Random(os.environ["MASTER_PORT"]).sample(sorted(WAYS), len(WAYS)):
        WAYS[way](models[way], work[:1], ranks)
        ranks.barrier()
        started = time.perf_counter()
        WAYS[way](models[way], work, ranks)
        ranks.barrier()
        taken[way] = time.perf_counter() - started
    return taken


GROUPS = {"ours": count_ours, "usual": count_usual, "time": time_group}


class Bytes(TorchDispatchMode):
    """Counts the bytes of what is dispatched to the process group, by collective."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func.namespace == "c10d":
            # Of a gather's two sides the gathered one; other collectives have one side only.
            sides = [sum(t.nbytes for t in tensors(side)) for side in args[:2]]
            self.counts[func.overloadpacket.__name__] += max(sides)
        return func(*args, **(kwargs or {}))


def tensors(value: Any) -> Iterable[torch.Tensor]:
    """The tensors in nested lists."""
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))


def bytes_of(way: Callable, work: list) -> Counter[str]:
    """Bytes by collective of one pass on this rank."""
    with Bytes() as mode:
        way(work)
    return mode.counts


def batches(
    lengths: np.ndarray, examples: int, options: argparse.Namespace, ranks: Ranks
) -> list[tuple]:
    """This rank's batches (inputs, labels, weights) of so many of the task's examples."""
    chosen = np.sort(np.random.default_rng(0).choice(len(lengths), examples, replace=False))
    found = []
    for indices, weight_B in evaluation_batches(
        lengths, ranks.rank, ranks.world_size, micro_batch=options.batch, examples=chosen
    ):
        own = lengths[indices]
        inputs, labels_B = batch_of(own, int(own.max()), int(indices[0]))
        found.append((inputs, labels_B, torch.from_numpy(weight_B)))
    return found


def ours(model: BertForSequenceClassification, work: list[tuple], ranks: Ranks) -> None:
    """As `running/steps/scoring.py` does it."""
    with ImportancePass(model, device=ranks.device) as scoring:
        for inputs, labels_B, weight_B in work:
            logits_BC = model(**inputs).logits
            scoring.add(cross_entropy(logits_BC, labels_B, reduction="none"), weight_B)
        scoring.reduce(ranks.sum_)


def usual(model: DistributedDataParallel, work: list[tuple], ranks: Ranks) -> None:
    """Gates in the graph, gradients of all weights, the absolute value of each batch's gradient."""
    layers = unit_layers(model.module)
    sizes = (768, 3072)
    gates = [torch.ones(len(layers), size, requires_grad=True) for size in sizes]
    totals = [torch.zeros_like(gate) for gate in gates]
    handles = []
    for i, layer in enumerate(layers):
        for module, gate in zip((layer.attention_output, layer.ffn_output), gates, strict=True):
            handles.append(module.register_forward_pre_hook(multiply(gate, i)))
    for inputs, labels_B, weight_B in work:
        losses_B = cross_entropy(model(**inputs).logits, labels_B, reduction="none")
        (losses_B * weight_B).mean().backward()
        for total, gate in zip(totals, gates, strict=True):
            assert gate.grad is not None
            if ranks.world_size > 1:
                dist.all_reduce(gate.grad)
            total += gate.grad.abs()
            gate.grad = None
        model.zero_grad()
    for handle in handles:
        handle.remove()


WAYS: dict[str, Callable] = {"ours": ours, "usual": usual}

if __name__ == "__main__":
    main()
