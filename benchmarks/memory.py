"""What ZeRO saves: peak memory of each rank at every stage, on a model of BERT-large's shapes.

    python benchmarks/memory.py [--layers 24] [--stages 0 1 2 3 3_offload] [--out FILE]

BERT-large (24 layers of width 1024, 334 million parameters, random weights) is written to
safetensors files once. For each stage a fresh group of two processes loads it, scores every unit on
a few examples, cuts the winning ticket of one ratio and trains it for some steps, through the same
functions as a study. Memory is the process's own (anonymous pages at their highest, without what it
maps from files), less what it has after imports; `load` and `score` are those of the importance
pass, `train` that of the pruned model with Adam's moments. Below ZeRO 3 each rank holds the dense
model twice while it loads: a worker keeps one for its next trial. Losses are compared with those of
the first stage.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel, PreTrainedModel

from bigtickets.running.steps.prepared import cut_values
from bigtickets.study.spec import ExecutionSpec, ModelSpec, TicketsSpec, TrainingSpec
from bigtickets.tickets.importance import ImportancePass
from bigtickets.tickets.selection import select
from bigtickets.tickets.shapes import Masks, weights_per_unit
from bigtickets.tickets.surgery import remove_units
from bigtickets.tickets.units import model_shapes
from bigtickets.training.engine import Engine, scoring_network
from bigtickets.training.hollow import Source, hollow_model, pretrained_source
from bigtickets.training.models import Values, load_model
from bigtickets.training.ranks import Ranks, process_group

STAGES = ["0", "1", "2", "2_offload", "3", "3_offload"]
EXAMPLES, LENGTH = 4, 32
STEPS = 3
RATIO = 0.5
GIB = 2**30


def main() -> None:
    """Measure and print; JSON into --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rank", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        one_rank(*options.rank)
        return
    with tempfile.TemporaryDirectory(prefix="bigtickets-memory-") as folder:
        write_model(Path(folder) / "model", options.layers)
        found = {s: group(Path(folder), s, options.processes) for s in options.stages}
    print(table(found))
    if options.out:
        facts = {"layers": options.layers, "processes": options.processes, "stages": found}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


def write_model(folder: Path, layers: int) -> None:
    """BERT-large's shapes, as a folder that a study could name."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
    )
    BertModel(config).save_pretrained(folder, max_shard_size="500MB")


def group(folder: Path, stage: str, processes: int) -> dict[str, Any]:
    """What one launched group measures."""
    out = folder / f"{stage}.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), __file__]
    # glibc keeps what is freed in pieces of up to 32 MiB: a layer's weights would stay for ever.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    environment["PYTHONWARNINGS"] = "ignore"
    words = [*command, "--rank", str(folder / "model"), stage, str(out)]
    subprocess.run(words, env=environment, check=True)
    return json.loads(out.read_text())


def one_rank(folder: str, stage: str, out: str) -> None:
    """Load, score, prune and train on this rank; the first writes."""
    torch.set_num_threads(1)
    zero, _, offload = stage.partition("_")
    execution = ExecutionSpec(zero=int(zero), offload=bool(offload))
    model = ModelSpec(name="large", path=folder, identity="local", execution=execution)
    with process_group() as ranks:
        base = anonymous_bytes()
        scores, load, score = scored(model, ranks, base)
        gc.collect()  # as a worker does between two steps
        kept = winning(model, scores)
        losses, train = trained(model, kept, ranks, base)
        facts = {
            "load_gb": gathered(load, ranks),
            "score_gb": gathered(score, ranks),
            "train_gb": gathered(train, ranks),
            "losses": losses,
            "scores": {unit: float(np.sum(v)) for unit, v in scores.items()},
            "kept": {unit: int(v.sum()) for unit, v in kept.items()},
        }
        if ranks.first:
            Path(out).write_text(json.dumps(facts))


def scored(model: ModelSpec, ranks: Ranks, base: int) -> tuple[dict[str, np.ndarray], float, float]:
    """(normalised scores, peak of loading, peak of the pass)."""
    ids_BT, labels_B = examples(ranks)
    with Peak(base) as load:
        network, values = build(model, {}, ranks)
        context = scoring_network(network, values, model.execution, ranks)
        network = context.__enter__()
    with Peak(base) as score, ImportancePass(network, device=ranks.device) as scoring:
        for ids_T, label in zip(ids_BT, labels_B, strict=True):
            loss_B = cross_entropy(network(ids_T[None]).logits, label[None], reduction="none")
            scoring.add(loss_B, torch.ones(1))
        scoring.reduce(ranks.sum_)
    context.__exit__(None, None, None)
    return scoring.scores().normalized("layer"), load.gb, score.gb


def winning(model: ModelSpec, scores: dict[str, np.ndarray]) -> Masks:
    """The ticket of RATIO."""
    weights = weights_per_unit(model_shapes(hollow_model(model, 2)))
    return select(scores, weights, TicketsSpec(), "winning", RATIO, 0).kept


def trained(model: ModelSpec, kept: Masks, ranks: Ranks, base: int) -> tuple[list[float], float]:
    """(loss of each step over all ranks, peak)."""
    ids_BT, labels_B = examples(ranks)
    with Peak(base) as peak:
        network, values = build(model, kept, ranks)
        engine = Engine(network, TrainingSpec(), model.execution, ranks, values)
        losses = []
        for _ in range(STEPS):
            logits_BC = engine(input_ids=ids_BT).logits
            loss = cross_entropy(logits_BC, labels_B)
            engine.backward(loss, True)
            engine.step(1e-4)
            total = loss.detach().clone()
            ranks.sum_(total)
            losses.append(float(total) / ranks.world_size)
        engine.close()
    return losses, peak.gb


def build(model: ModelSpec, kept: Masks, ranks: Ranks) -> tuple[PreTrainedModel, Values | None]:
    """The network, hollow if it will be sharded, and its weights; `kept` empty: the dense one."""
    if model.execution.zero < 3:
        network = load_model(model, 2, 0).eval()
        return remove_units(network, kept) if kept else network, None
    network = hollow_model(model, 2)
    source = pretrained_source(model, network, 2, 0) if ranks.first else Source()
    return network, cut_values(network, source, kept)


def examples(ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's share: (EXAMPLES / ranks) x LENGTH token ids, and labels."""
    random = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(1000, 30000, (EXAMPLES, LENGTH), generator=random)
    labels_B = torch.arange(EXAMPLES) % 2
    return ids_BT[ranks.rank :: ranks.world_size], labels_B[ranks.rank :: ranks.world_size]


class Peak:
    """The most anonymous memory above `base` bytes while it is entered, seen every 5 ms."""

    def __init__(self, base: int) -> None:
        self._base, self.gb = base, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.gb = max(self.gb, (anonymous_bytes() - self._base) / GIB)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def gathered(value: float, ranks: Ranks) -> list[float]:
    """Every rank's value, in the order of ranks."""
    row = torch.zeros(ranks.world_size, dtype=torch.float64)
    row[ranks.rank] = value
    ranks.sum_(row)
    return [round(v, 3) for v in row.tolist()]


def table(found: dict[str, dict[str, Any]]) -> str:
    """For people."""
    first = next(iter(found.values()))
    lines = ["stage       load GiB      score GiB     train GiB     loss of the last step"]
    for stage, facts in found.items():
        cells = [
            "  ".join(f"{v:5.2f}" for v in facts[f"{k}_gb"]) for k in ("load", "score", "train")
        ]
        difference = abs(facts["losses"][-1] / first["losses"][-1] - 1)
        lines.append(
            f"{stage:<10}" + "  ".join(f"{c:<12}" for c in cells) + f"  {difference:.1e} off"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
