"""A made-up but realistic run folder: two encoders, two tasks, a rise, a collapse, some gaps."""

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from scipy.special import log_softmax

from bigtickets.analysis.report import build_report
from bigtickets.files import write_bytes, write_json
from bigtickets.study.claims import Claims
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import ImportanceSpec, ModelSpec, StudySpec, TaskSpec, TicketsSpec
from bigtickets.study.state import write_run
from bigtickets.study.steps import Step, expand

HEADS, NEURONS, HEAD_WEIGHTS, NEURON_WEIGHTS = 12, 48, 98_592, 769
EXAMPLES = 300
LAYERS = {"L3": 3, "L6": 6, "L12": 12}
VERSIONS = {"bigtickets": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "deepspeed": "0.19.8"}
Keep = Callable[[Step], bool]


def study(
    models: tuple[str, ...] = ("L3", "L6"),
    tasks: tuple[str, ...] = ("movie", "tweets"),
    seeds: tuple[int, ...] = (0, 1, 2),
    ratios: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8),
    kinds: tuple[Any, ...] = ("winning", "random"),
    **more: Any,
) -> StudySpec:
    """The study that was asked for."""
    return StudySpec(
        study="ladder",
        models=tuple(ModelSpec(name=m, path=f"/models/{i}", identity=f"local:{i}")
                     for i, m in enumerate(models)),
        tasks=tuple(_task(name) for name in tasks),
        tickets=TicketsSpec(ratios=ratios, kinds=kinds),
        seeds=seeds,
        **more,
    )  # fmt: skip


def default_keep(step: Step) -> bool:
    """What is finished: all but one seed's last levels of one cell."""
    late = (step.model, step.task, step.seed) == ("L6", "tweets", 2)
    return not (late and step.kind == "random" and step.ratio >= 0.6)


def make_run(root: Path, spec: StudySpec | None = None, keep: Keep = default_keep) -> RunFolder:
    """Write a run folder in which the steps that `keep` names are done; one other failed."""
    spec, folder = spec or study(), RunFolder(root)
    write_run(spec, folder)
    write_json(folder.environment, {"versions": VERSIONS, "commit": None, "host": "node001"})
    steps = {step.id: step for step in expand(spec)}
    for step in steps.values():
        if step.step == "scores":
            _write_scores(folder, step, _layers(spec, step.model))
        elif step.step == "ticket":
            _write_ticket(folder, step, _layers(spec, step.model))
    trials = [step for step in steps.values() if step.step == "trial"]
    for step in filter(keep, trials):
        _write_trial(folder, step, spec, _labels(step.task))
    left = [step for step in trials if not keep(step)]
    if left:
        _fail(folder, left[0])
    return folder


@functools.cache
def shared_run() -> RunFolder:
    """One run folder for all tests that only read records."""
    return make_run(_temporary() / "run")


@functools.cache
def reported_run() -> RunFolder:
    """One run folder of two models and one task, with its report."""
    folder = make_run(_temporary() / "run", study(tasks=("tweets",)))
    build_report(folder)
    return folder


def _temporary() -> Path:
    home = Path(tempfile.mkdtemp(prefix="bigtickets-test-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def _task(name: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        identity=f"files:{name}",
        text=("sentence",),
        label="label",
        metric="accuracy",
        labels=None,
        train=(f"/data/{name}/train.tsv",),
        validation=(("validation", (f"/data/{name}/validation.tsv",)),),
    )


def _layers(spec: StudySpec, model: str) -> int:
    names = [m.name for m in spec.models]
    return LAYERS.get(model, 3 * (names.index(model) + 1))


def _labels(task: str) -> np.ndarray:
    return (_rng("labels", task).random(EXAMPLES) < 0.52).astype(np.int64)


def _rng(*key: Any) -> np.random.Generator:
    return np.random.default_rng(list(repr(key).encode()))


def _write_scores(folder: RunFolder, step: Step, layers: int) -> None:
    rng = _rng(step.id)
    numbers = {"heads": rng.random((layers, HEADS)), "neurons": rng.random((layers, NEURONS))}
    folder.score(step.id).mkdir(parents=True)
    save_file(numbers, folder.score(step.id) / "scores.safetensors")
    record = {
        "schema": 1,
        "step": "scores",
        "id": step.id,
        "label": step.label,
        "spec": {"model": step.model, "task": step.task, "seed": step.seed},
        "stability": {"heads": 0.98, "neurons": 0.91},
        "counts": {"examples": 2000},
        "host": "node001",
    }
    write_json(folder.score(step.id) / "record.json", record)


def kept_units(step: Step, layers: int) -> dict[str, list[list[int]]]:
    """Nested over the ratios; each layer keeps one unit."""
    kept = {}
    for unit, units in (("heads", HEADS), ("neurons", NEURONS)):
        rng = _rng(unit, step.model, step.task, step.kind, step.seed)
        score_LN = rng.random((layers, units)) * np.linspace(1, 1.6, layers)[:, None]
        score_LN += 0.15 * _rng(step.needs[0]).random((layers, units))
        cut = np.quantile(score_LN, step.ratio)
        score_LN[np.arange(layers), score_LN.argmax(1)] = 9
        kept[unit] = [np.flatnonzero(row > cut).tolist() for row in score_LN]
    return kept


def _write_ticket(folder: RunFolder, step: Step, layers: int) -> None:
    kept = kept_units(step, layers)
    total = {"heads": layers * HEADS, "neurons": layers * NEURONS}
    removed = {u: total[u] - sum(map(len, kept[u])) for u in kept}
    ticket = {
        "hash": 4 * step.id,
        "kind": step.kind,
        "ratio": step.ratio,
        "seed": step.seed,
        "asked": removed,
        "fractions": _fractions(removed, layers),
        "length": 128,
        "provenance": {"scores": step.needs[0]},
        "removed": removed,
        "total": total,
        "kept": kept,
        "id": step.id,
        "label": step.label,
    }
    write_json(folder.ticket(step.id), ticket)


def _fractions(removed: dict[str, int], layers: int) -> dict[str, float]:
    weights = removed["heads"] * HEAD_WEIGHTS + removed["neurons"] * NEURON_WEIGHTS
    whole = layers * (HEADS * HEAD_WEIGHTS + NEURONS * NEURON_WEIGHTS)
    encoder = weights / whole
    return {"encoder": encoder, "model": weights / (whole + 11_900_000), "flops": encoder * 0.97}


def skill(step: Step, layers: int) -> float:
    """Probability of a right answer: a small rise, then a collapse; random ones fall sooner.

    With less data the fall is sharper: a tenth of the data, half of the width.
    """
    base = {"movie": 0.80, "tweets": 0.72}.get(step.task, 0.75) + 0.006 * layers
    bump = 0.035 * np.exp(-(((step.ratio - 0.2) / 0.12) ** 2)) if step.kind == "winning" else 0.0
    middle = (0.66 if step.kind == "winning" else 0.46) + 0.005 * layers
    width = 0.06 * step.data_fraction ** np.log10(2)
    fall = 1 / (1 + np.exp(-(step.ratio - middle) / width)) if step.ratio else 0.0
    return float((base + bump) * (1 - fall) + 0.53 * fall)


def _predict(step: Step, layers: int, labels_N: np.ndarray) -> tuple[np.ndarray, str | None]:
    rng = _rng(step.id)
    if step.kind == "random" and step.ratio > 0.7 and step.seed == 0:
        return np.tile(np.float32([0.1, 0.4]), (len(labels_N), 1)), "constant"
    hard_N = _rng("hard", step.task).random(len(labels_N))
    noise_N = 0.3 * rng.standard_normal(len(labels_N)) + 0.01 * rng.standard_normal()
    right_N = skill(step, layers) - hard_N + noise_N * 0.2 > 0
    margin_N = np.abs(rng.standard_normal(len(labels_N))) * np.where(right_N, 1, -1)
    sign_N = np.where(labels_N == 1, 1, -1) * margin_N
    return np.stack([-sign_N, sign_N], axis=1).astype(np.float32), None


def _write_trial(folder: RunFolder, step: Step, spec: StudySpec, labels_N: np.ndarray) -> None:
    layers = _layers(spec, step.model)
    logits_NC, flagged = _predict(step, layers, labels_N)
    score = float((logits_NC.argmax(1) == labels_N).mean())
    majority = float(max(labels_N.mean(), 1 - labels_N.mean()))
    loss = -float(log_softmax(logits_NC, axis=1)[np.arange(len(labels_N)), labels_N].mean())
    degenerate = flagged or ("majority" if score <= majority else None)
    path = folder.trial(step.id)
    path.mkdir(parents=True)
    save_file({"logits": logits_NC, "labels": labels_N}, path / "predictions.safetensors")
    lines = [{"step": 10 * i, "loss": 0.7 / i, "learning_rate": 1e-5} for i in range(1, 4)]
    write_bytes(path / "metrics.jsonl", "".join(json.dumps(x) + "\n" for x in lines).encode())
    results = {
        "metrics": {"score": score, "accuracy": score, "loss": loss, "f1": score - 0.01},
        "majority_score": majority,
        "degenerate": degenerate,
    }
    write_json(path / "record.json", {**_record(folder, step, layers), **results})


def _record(folder: RunFolder, step: Step, layers: int) -> dict[str, Any]:
    ticket = json.loads(folder.ticket(step.ticket).read_text()) if step.ticket else None
    fractions = ticket["fractions"] if ticket else {"encoder": 0.0, "model": 0.0, "flops": 0.0}
    removed = ticket["removed"] if ticket else {"heads": 0, "neurons": 0}
    encoder = layers * (HEADS * HEAD_WEIGHTS + NEURONS * NEURON_WEIGHTS)
    return {
        "schema": 1,
        "step": "trial",
        "id": step.id,
        "label": step.label,
        "attempt": 1,
        "spec": {"model": step.model, "task": step.task, "kind": step.kind, "ratio": step.ratio},
        "headline": "accuracy",
        "counts": {
            "train_examples": round(2145 * step.data_fraction),
            "eval_examples": EXAMPLES,
            "steps": 136,
            "tokens": 90_000,
            "parameters": round((encoder + 11_900_000) * (1 - fractions["model"])),
            "dense_parameters": encoder + 11_900_000,
            "encoder_parameters": encoder,
            "heads": layers * HEADS - removed["heads"],
            "neurons": layers * NEURONS - removed["neurons"],
            "blocks": layers,
        },
        "fractions": fractions,
        "ticket": {"id": ticket["id"], "hash": ticket["hash"]} if ticket else None,
        "timings": {"load_s": 0.4, "train_s": 11.0, "eval_s": 0.9, "total_s": 12.3},
        "throughput": {"examples_per_s": 195.0, "tokens_per_s": 8181.0, "mfu": None},
        "peak_memory_gb": 1.2,
        "execution": {"zero": 0, "device": "cpu", "world_size": 1},
        "versions": VERSIONS,
        "commit": {"id": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "host": "node001" if (step.seed or 0) < 2 else "node002",
        "finished": "2026-11-20T10:00:00Z",
    }


def _fail(folder: RunFolder, step: Step) -> None:
    claims = Claims(folder.claims, "worker-1", log="worker-1.log")
    claim = claims.take(step.id)
    assert claim
    claims.release(claim, "oom", "out of memory at micro-batch 32")


def each_seed() -> ImportanceSpec:
    """Scores of every seed's dense model: tickets differ between seeds."""
    return ImportanceSpec(seeds="each")
