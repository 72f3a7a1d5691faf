"""The memory that `plan` foresees against what training and scoring take, on this machine's CPU.

    python benchmarks/plan_memory.py [--only MiniLM-L6] [--out benchmarks/results/plan_memory.json]

Cases that --out holds already are kept: a run that was stopped goes on.

Each case is a real `train` (or `score`) of a study over a model of random weights in real shapes,
every example as long as may be, by the commands that users type. Measured is the record's peak of
the first rank, less that of the same command over a model of next to nothing, each in fresh
processes: what an imported process takes by itself is no part of the comparison, and CPU_CONSTANT
no part of the plan's figure. A GPU's constants (GPU_CONSTANT, bf16) are not tested here.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import BertConfig, BertModel, BertTokenizerFast

from bigtickets.running.sizes.memory import CPU_CONSTANT, GIB, Layout, memory_of
from bigtickets.study.spec import ExecutionSpec, TrainingSpec

SHAPES: dict[str, dict[str, int]] = {
    "nothing": {
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 100,
    },
    "MiniLM-L6": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "BERT-base": {},
}
WORDS = [f"w{i}" for i in range(60)]
STEP = Path(__file__).parents[1] / "launch" / "step.py"
RESULTS = Path(__file__).parent / "results" / "plan_memory.json"
EXAMPLES, LENGTH = 8, 128
"""Of one process at once, and their tokens."""
CASE = ("step", "processes", "execution")


def main() -> None:
    """Measure all cases; print each, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SHAPES, help="cases of one shape")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    measured: list[dict[str, Any]] = []
    if options.out.exists():
        measured = json.loads(options.out.read_text())["cases"]
    known = [{key: result[key] for key in ("shape", *CASE)} for result in measured]
    baselines: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="plan-memory-") as home:
        for case in cases():
            if options.only in (None, case["shape"]) and case not in known:
                measured.append({**case, **measure(case, Path(home), baselines)})
                print(line(planned(measured[-1])), flush=True)
                facts = summary([planned(result) for result in measured])
                options.out.write_text(json.dumps(facts, indent=1) + "\n")
    for result in measured:
        print(line(planned(result)))
    facts = summary([planned(result) for result in measured])
    options.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"largest error {facts['largest_error']:.1%}, median {facts['median_error']:.1%}")


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """All cases and what their errors come to."""
    errors = sorted(abs(result["error"]) for result in results)
    return {
        "torch": torch.__version__,
        "machine": "CPU, float32, gloo, one thread per process",
        "largest_error": errors[-1],
        "median_error": errors[len(errors) // 2],
        "cases": results,
    }


def cases() -> Iterator[dict[str, Any]]:
    """Every stage on one and two processes, then what else decides the activations."""
    for zero in range(4):
        for shape in ("MiniLM-L6", "BERT-base"):
            for processes in (1, 2):
                yield case(shape, processes=processes, zero=zero)
    yield case("MiniLM-L6", zero=0, attention="eager")
    yield case("MiniLM-L6", zero=0, gradient_checkpointing=True)
    yield case("MiniLM-L6", zero=0, micro_batch=2)
    yield case("MiniLM-L6", step="score", zero=0)


def case(shape: str, step: str = "train", processes: int = 1, **execution: Any) -> dict[str, Any]:
    """One comparison."""
    return {"shape": shape, "step": step, "processes": processes, "execution": execution}


def measure(case: dict[str, Any], home: Path, baselines: dict[str, float]) -> dict[str, float]:
    """GiB at the peak, above a process of the same kind without a model to speak of."""
    alike = f"{case['step']} {case['processes']}"
    if alike not in baselines:
        baselines[alike] = peak_gb({**case, "shape": "nothing"}, home)
    peak = peak_gb(case, home)
    return {
        "baseline_gb": round(baselines[alike], 4),
        "measured_gb": round(peak - baselines[alike], 4),
    }


def planned(result: dict[str, Any]) -> dict[str, Any]:
    """A measured case with what the plan says, and how much that is off."""
    config = BertConfig(**SHAPES[result["shape"]]).to_dict()
    training = TrainingSpec(batch_size=EXAMPLES * result["processes"], max_length=LENGTH)
    execution = ExecutionSpec(**result["execution"])
    layout = Layout(execution.stage, False, result["processes"])
    memory = memory_of(config, training, execution, layout, cpu=True)
    took = memory.scoring if result["step"] == "score" else memory.peak - CPU_CONSTANT
    return {
        **result,
        "planned_gb": round(took / GIB, 4),
        "error": round(took / GIB / result["measured_gb"] - 1, 4),
    }


def peak_gb(case: dict[str, Any], home: Path) -> float:
    """Peak of the first rank of one command, from its record."""
    path = write_study(case, home)
    out = home / "run"
    shutil.rmtree(out, ignore_errors=True)
    if case["step"] == "score":  # trained by another process
        run(["train", str(path), "--out", str(out)], 1)
    run([case["step"], str(path), "--out", str(out)], case["processes"])
    kind = "scores" if case["step"] == "score" else "trials"
    (record,) = (out / kind).glob("*/record.json")
    return float(json.loads(record.read_text())["peak_memory_gb"])


def run(words: list[str], processes: int) -> None:
    """One command on a group of processes, as a user types it."""
    command = [sys.executable, "-m", "bigtickets"]
    if processes > 1:
        group = ["--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, "-m", "torch.distributed.run", *group, str(STEP)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run([*command, *words], env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stdout + result.stderr)


def write_study(case: dict[str, Any], home: Path) -> Path:
    """Model, data and study of one case."""
    folder = home / case["shape"]
    if not folder.exists():
        write_model(folder, SHAPES[case["shape"]])
    batch = EXAMPLES * case["processes"]
    for name, rows in (("train", 3 * batch), ("validation", 4)):
        sentence = " ".join(WORDS * 3)
        lines = [f"{sentence}\t{i % 2}" for i in range(rows)]
        (home / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    length = 16 if case["shape"] == "nothing" else LENGTH
    study = {
        "study": "memory",
        "models": [{"name": case["shape"], "path": str(folder)}],
        "tasks": [
            {
                "name": "made",
                "train": str(home / "train.tsv"),
                "validation": str(home / "validation.tsv"),
                "text": "sentence",
                "label": "label",
            }
        ],
        # Weights of a model that is scored are stored, too: another matter.
        "tickets": {"ratios": [0, 0.5] if case["step"] == "score" else [0], "kinds": ["winning"]},
        "training": {"epochs": 1, "batch_size": batch, "max_length": length},
        "seeds": [0],
        "execution": {
            **case["execution"],
            "processes_per_trial": case["processes"],
            "checkpoint_every_s": 1e6,
        },
    }
    path = home / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def write_model(folder: Path, shape: dict[str, int]) -> None:
    """A random encoder with a vocabulary of whole words."""
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *WORDS]) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(**shape)).save_pretrained(folder)


def line(result: dict[str, Any]) -> str:
    """One case in words."""
    extra = " ".join(f"{k}={v}" for k, v in result["execution"].items())
    return (
        f"{result['shape']:<10} {result['step']:<6} {result['processes']} processes {extra:<30} "
        f"measured {result['measured_gb']:6.3f} GiB, planned {result['planned_gb']:6.3f} "
        f"({result['error']:+.1%})"
    )


if __name__ == "__main__":
    main()
