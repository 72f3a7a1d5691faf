"""The choice of processes and ZeRO stage, and `auto` made so."""

import dataclasses
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_study import write_study
from tiny_models import BERT_BASE

from bigtickets import cli
from bigtickets.errors import InputError
from bigtickets.running.sizes.machine import this_machine
from bigtickets.running.sizes.planning import plan_facts
from bigtickets.running.sizes.sizing import Machine, choose, choose_cpu, process_counts, resolve
from bigtickets.running.slurm.cluster import Cluster
from bigtickets.running.slurm.commands import machine_of
from bigtickets.study.folder import RunFolder
from bigtickets.study.reader import read_study
from bigtickets.study.spec import ExecutionSpec, StudySpec, TrainingSpec
from bigtickets.study.steps import expand

OPEN = ExecutionSpec(zero="auto", processes_per_trial="auto")
LLAMA_70B = {
    "model_type": "llama",
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def bert(hidden: int, layers: int) -> dict[str, Any]:
    return BERT_BASE | {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
    }


def test_small_models_take_one_gpu_and_no_zero() -> None:
    for config in (bert(384, 6), BERT_BASE, bert(1024, 24)):
        found = choose(config, TrainingSpec(), OPEN, 80, 8)
        assert (found.zero, found.offload, found.processes, found.nodes) == (0, False, 1, 1)
        assert found.fits
        assert found.memory_gb < 20


def test_larger_models_take_as_few_gpus_as_will_do() -> None:
    for hidden, layers in ((4096, 32), (8192, 40)):
        config = bert(hidden, layers)
        found = choose(config, TrainingSpec(), OPEN, 80, 512, 8)
        assert found.fits
        assert not found.offload
        assert found.processes > 1
        assert found.memory_gb <= 80
        fewer = dataclasses.replace(OPEN, processes_per_trial=found.processes // 2)
        less = choose(config, TrainingSpec(), fewer, 80, 512, 8)
        assert less.offload or not less.fits, "at most by offloading"
        for zero in range(found.zero):
            lower = dataclasses.replace(OPEN, zero=zero, processes_per_trial=found.processes)
            assert not choose(config, TrainingSpec(), lower, 80, 512, 8).fits


def test_offload_comes_last_and_nothing_fitting_is_said() -> None:
    config = bert(4096, 32)
    found = choose(config, TrainingSpec(), OPEN, 40, 2)
    assert found.fits
    assert found.offload
    assert found.host_gb > 10
    nothing = choose(config, TrainingSpec(), OPEN, 1, 8)
    assert not nothing.fits


def test_what_is_fixed_stays() -> None:
    found = choose(BERT_BASE, TrainingSpec(), ExecutionSpec(zero=2, processes_per_trial=4), 80, 8)
    assert (found.zero, found.processes, found.offload) == (2, 4, False)
    found = choose(
        BERT_BASE, TrainingSpec(), ExecutionSpec(zero="auto", processes_per_trial=4), 80, 8
    )
    assert (found.zero, found.processes) == (0, 4)


def test_a_cpu_takes_one_process() -> None:
    found = choose_cpu(BERT_BASE, TrainingSpec(), OPEN, 16)
    assert (found.zero, found.processes, found.fits) == (0, 1, True)
    assert not choose_cpu(BERT_BASE, TrainingSpec(), OPEN, 1).fits
    two = ExecutionSpec(processes_per_trial=2)
    assert not choose_cpu(BERT_BASE, TrainingSpec(), two, found.memory_gb * 1.5).fits


def test_counts_are_parts_of_a_machine_or_whole_machines() -> None:
    assert process_counts(8, 8) == [1, 2, 4, 8]
    assert process_counts(6, 6) == [1, 2, 4, 6]
    assert process_counts(64, 4) == [1, 2, 4, 8, 16, 32, 64]
    assert process_counts(1, 1) == [1]


def test_a_seventy_billion_llama() -> None:
    found = choose(LLAMA_70B, TrainingSpec(), OPEN, 80, 512, 8)
    assert found.fits
    assert found.zero == 3
    assert found.nodes > 1
    # 16 bytes for each of 70 billion parameters alone fill 13 such GPUs.
    assert 16 <= found.processes <= 64


def test_a_cluster_file_says_what_trials_run_on() -> None:
    path = Path("my.yaml")
    found = machine_of(Cluster(gpus_per_node=4, gpu_memory_gb=40), path)
    assert (found.memory_gb, found.gpus) == (40, 4)
    assert found.nodes > 1
    assert machine_of(Cluster(memory_gb=16), path).gpus == 0
    with pytest.raises(InputError, match=r"my\.yaml: gpu_memory_gb"):
        machine_of(Cluster(gpus_per_node=4), path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sizing")


def study(root: Path, **execution: Any) -> StudySpec:
    return read_study(write_study(root, execution=execution))


def test_auto_is_resolved_for_every_model(root: Path) -> None:
    asked = study(root, zero="auto", processes_per_trial="auto")
    with pytest.raises(ValueError, match="auto"):
        _ = asked.execution.stage
    for machine in (Machine(16, 0), Machine(80, 8)):
        found = resolve(asked, machine)
        for execution in (found.execution, *(m.execution for m in found.models)):
            assert (execution.stage, execution.processes) == (0, 1)
    with pytest.raises(InputError, match=r"model tiny: .* GiB on each of"):
        resolve(asked, Machine(0.1, 0))


def test_without_auto_no_machine_is_looked_at(root: Path) -> None:
    def never() -> Machine:
        raise AssertionError

    asked = study(root, zero=1, processes_per_trial=2)
    assert resolve(asked, never) is asked


def test_auto_and_precision_change_no_step(root: Path) -> None:
    path = write_study(root)
    plain = {step.id for step in expand(read_study(path))}
    raw = yaml.safe_load(path.read_text())
    raw["execution"] |= {"zero": "auto", "processes_per_trial": "auto"}
    raw["analysis"] = {"precision": 0.25}
    path.write_text(yaml.safe_dump(raw))
    changed = read_study(path)
    assert changed.analysis.precision == 0.25
    assert {step.id for step in expand(changed)} == plain


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("analysis", {"precision": 0}, r"analysis\.precision: 0.*more than 0 points"),
        ("analysis", {"precison": 1}, "precision"),
        ("execution", {"zero": "some"}, r"execution\.zero.*auto"),
        ("execution", {"zero": 4}, "0, 1, 2, 3 or auto"),
        ("execution", {"processes_per_trial": 0}, "auto, or 1 or more"),
        ("execution", {"zero": "auto", "ds_config": "study.yaml"}, "is for one stage"),
    ],
)
def test_what_cannot_be_meant(root: Path, section: str, keys: Any, message: str) -> None:
    raw = yaml.safe_load(write_study(root).read_text())
    raw[section] = raw.get(section, {}) | keys
    path = root / "study.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError, match=message):
        read_study(path)


def test_scores_that_depend_on_the_processes_need_a_number(root: Path) -> None:
    raw = yaml.safe_load(write_study(root, execution={"processes_per_trial": "auto"}).read_text())
    raw["importance"] = {"granularity": "legacy_batch", "batch": 4}
    (root / "study.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError, match="legacy_batch"):
        read_study(root / "study.yaml")


def test_this_machine_is_asked_for_its_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine = this_machine()
    assert machine.gpus == 0
    assert machine.memory_gb > 0.5
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 81920\necho 40960\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert this_machine() == Machine(40.0, 2)
    tool.write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(InputError, match="--gpu-memory"):
        this_machine()


def test_hours_and_disk_need_no_machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs without GPUs submit what is left, on nodes whose GPUs they may not look at."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PATH", "/nowhere")
    facts = plan_facts(study(root), RunFolder(root / "run"))
    assert facts["hours"] > 0
    assert "memory" not in facts["models"][0]


def test_the_plan_shows_sizes_choice_and_seeds(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(root, execution={"zero": "auto", "processes_per_trial": "auto"})
    words = ["plan", str(path), "--out", str(root / "run"), "--gpu-memory", "80"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "2+offload" in text
    assert "asked:  ZeRO 0 on 1 process" in text
    assert "of 80.0 GiB of each GPU" in text
    assert "seeds: " in text
    assert cli.main([*words, "--gpus-per-node", "4", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (model,) = facts["models"]
    assert facts["machine"] == {"memory_gb": 80.0, "gpus": 4, "nodes": 1}
    ways = {(w["processes"], w["zero"], w["offload"]) for w in model["memory"]["ways"]}
    assert len(ways) == 12
    assert model["memory"]["choice"]["fits"]
    assert facts["seeds"]["given"] == len(read_study(path).seeds)
    assert not (root / "run").exists()
    assert cli.main(["plan", str(path), "--gpus-per-node", "4"]) == 2
    assert "give --gpu-memory too" in capsys.readouterr().err
