"""The batch script, and what a job does on its node."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_study import HANG_S
from test_steps import STUDY

from bigtickets.files import write_json
from bigtickets.running.local import worker_command
from bigtickets.running.slurm import commands, job, journal
from bigtickets.running.slurm.argv import script
from bigtickets.running.slurm.queue import QueuedJob
from bigtickets.study.claims import Claims
from bigtickets.study.folder import RunFolder
from bigtickets.study.spec import ExecutionSpec
from bigtickets.study.state import write_run


def options(*words: str) -> object:
    return job._parser().parse_args([*words, "--uid", "u"])


def test_groups_side_by_side(tmp_path: Path) -> None:
    asked = options(
        *("trials", str(tmp_path), "--processes", "2", "--groups", "4", "--per-node", "8"),
        *("--job", "12_3", "--cpus", "32", "--until", "99"),
    )
    slots = job.groups(RunFolder(tmp_path), asked, job.threads_of(STUDY, asked))
    assert [slot.log.name for slot in slots] == [f"worker-12_3-{i}.log" for i in range(4)]
    assert {(slot.processes, slot.threads) for slot in slots} == {(2, 4)}
    model = replace(STUDY.models[0], execution=ExecutionSpec(processes_per_trial=2, threads=3))
    assert job.threads_of(replace(STUDY, models=(model,)), asked) == 3
    assert worker_command(RunFolder(tmp_path), slots[1])[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("-m", "bigtickets.running.worker", str(tmp_path), "--worker-log", "worker-12_3-1.log"),
        *("--processes", "2", "--patience", "90.0", "--until", "99.0"),
    ]


def test_a_group_over_nodes_has_a_name_of_its_own_in_every_life(tmp_path: Path) -> None:
    asked = options(
        *("scoring", str(tmp_path), "--processes", "32", "--per-node", "8", "--nodes", "4"),
        *("--node", "2", "--head", "n1", "--job", "12_3", "--attempt", "1-2"),
    )
    (slot,) = job.groups(RunFolder(tmp_path), asked, 1)
    assert slot.log.name == "worker-12_3-0-node2.log"
    assert worker_command(RunFolder(tmp_path), slot)[1:] == [
        *("-m", "bigtickets.running.groups.launcher", "--job", "12_3-1-2", "--master-addr", "n1"),
        *("--nproc-per-node", "8", "worker", str(tmp_path)),
        *("--worker-log", "worker-12_3-0-node2.log"),
        *("--processes", "32", "--patience", "90.0", "--before-trials"),
    ]


@pytest.mark.parametrize("state", ["given up", "cancelled", "refused"])
def test_a_job_whose_id_was_given_up_does_nothing(
    tmp_path: Path, state: journal.State, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path)
    folder.manifest.write_text("")
    journal.change(folder, journal.Entry("u", 1, "trials", 1, 1, 0, 60), state)
    assert job.main(["trials", str(tmp_path), "--uid", "u"]) == 0
    assert job.main(["trials", str(tmp_path), "--uid", "unknown"]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 2


def test_a_job_that_cancel_missed_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last job was submitting it while the run was cancelled."""
    folder = RunFolder(tmp_path)
    folder.manifest.write_text("")
    journal.change(folder, journal.Entry("last", 1, "finish", 1, 1, 0, 60), "submitted", "6")
    seen = [QueuedJob("6", "6", "RUNNING", "", "", "last")]
    monkeypatch.setattr(commands, "query", lambda: seen)
    monkeypatch.setattr(commands, "ask", lambda command: "")
    commands.cancel(tmp_path, yes=True)
    journal.change(folder, journal.Entry("new", 2, "trials", 1, 1, 0, 60), "submitted", "7")
    capsys.readouterr()
    assert job.main(["trials", str(tmp_path), "--uid", "new"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_last_job_removes_what_killed_workers_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints of large models, for one."""
    monkeypatch.setattr(job, "_go_on", lambda folder, uid: None)
    folder, (done, unfinished, *_) = RunFolder(tmp_path), write_run(STUDY, RunFolder(tmp_path))
    claims = Claims(folder.claims, "dead")
    for step in (done, unfinished):
        assert claims.take(step.id)
        folder.attempt(step.id, 1).mkdir(parents=True)
    write_json(folder.result(done.step, done.id), {})
    journal.change(folder, journal.Entry("u", 1, "finish", 1, 1, 0, 60), "submitted", "7")
    assert job.main(["finish", str(tmp_path), "--uid", "u"]) == 0
    assert [path.name for path in (tmp_path / "work").iterdir()] == [unfinished.id]
    assert [path.name for path in folder.claims.iterdir()] == [f"{unfinished.id}.1"]


def test_the_script_is_clean() -> None:
    shellcheck = shutil.which(
        "shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    assert shellcheck, "no shellcheck: the `dev` extra has it"
    result = subprocess.run([shellcheck, script()], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


FAKES = {
    # Runs the task as srun would, and says what was asked for.
    "srun": """echo srun >> "$CALLS"
    while [[ $1 = --* ]]; do shift; done
    SLURM_NODEID=0 exec "$@" """,
    "scontrol": 'echo "scontrol $*" >> "$CALLS"; [ "$1" = requeue ] && kill "$PPID"; exit 0',
    "sleep": "exit 0",
}
PYTHON = 'printf "%s\\n" "$@" > "$CALLS.args"; env > "$CALLS.env"; exit "$(cat "$CALLS.code")"'


def run_script(folder: Path, code: int, *words: str, **environment: str) -> tuple[int, list[str]]:
    """Exit code of slurm/job.sh around a Python that ends with `code`, and its SLURM calls."""
    calls = folder / "calls"
    calls.write_text("")
    (folder / "calls.code").write_text(str(code))
    for name, text in {**FAKES, "the python": PYTHON}.items():
        path = folder / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    own = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "SLURM_JOB_ID": "14",
        "SLURM_ARRAY_JOB_ID": "12",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_CPUS_PER_TASK": "5",
        "SLURM_NNODES": "1",
        "BIGTICKETS_PYTHON": str(folder / "the python"),
        "BIGTICKETS_SECONDS": "100",
        "BIGTICKETS_REQUEUES": "2",
        **environment,
    }
    result = subprocess.run(
        ["bash", script(), *words], env=own, capture_output=True, text=True, timeout=HANG_S
    )
    return result.returncode, calls.read_text().splitlines()


def test_the_script_queues_its_own_element_again_and_not_for_ever(tmp_path: Path) -> None:
    assert run_script(tmp_path, 0, "trials", "/a run")[1] == ["srun"]
    assert run_script(tmp_path, 75, "trials", "/a run")[1] == ["srun", "scontrol requeue 12_3"]
    assert run_script(tmp_path, 75, "trials", "/a run", SLURM_RESTART_COUNT="2") == (75, ["srun"])
    # TERM: SLURM ends the job, and decides itself whether there is another life.
    assert run_script(tmp_path, 143, "trials", "/a run") == (143, ["srun"])
    assert run_script(tmp_path, 1, "trials", "/a run") == (1, ["srun"])
    # What was killed, or a group over nodes that died, is started again, five times at most.
    assert run_script(tmp_path, 137, "trials", "/a run") == (137, ["srun"] * 5)
    assert run_script(tmp_path, 70, "trials", "/a run") == (70, ["srun"] * 5)


def test_the_script_hands_words_on_and_runs_the_setup(tmp_path: Path) -> None:
    (tmp_path / "setup.sh").write_text('export FROM_SETUP="$UNSET yes"\n')
    (tmp_path / "container").write_text("env\nIN_CONTAINER=a b; $(id)\n")
    code, _ = run_script(
        *(tmp_path, 0, "trials", "/a run; $(touch x)"),
        BIGTICKETS_SETUP=str(tmp_path / "setup.sh"),
        BIGTICKETS_CONTAINER=str(tmp_path / "container"),
        BIGTICKETS_SCRATCH="$LOCAL_DISK",
        LOCAL_DISK=str(tmp_path / "local"),
    )
    assert code == 0
    words = (tmp_path / "calls.args").read_text().splitlines()
    assert words[:5] == ["-P", "-m", "bigtickets.running.slurm.job", "trials", "/a run; $(touch x)"]
    assert words[5:11] == ["--job", "12_3", "--cpus", "5", "--nodes", "1"]
    assert words[-2:] == ["--node", "0"]
    env = (tmp_path / "calls.env").read_text().splitlines()
    local = tmp_path / "local" / "bigtickets-14"
    assert {"FROM_SETUP= yes", "IN_CONTAINER=a b; $(id)", "SRUN_CPUS_PER_TASK=5"} <= set(env)
    assert f"TRITON_CACHE_DIR={local / 'triton'}" in env
    assert not list(tmp_path.glob("x"))


def test_the_script_stops_where_the_setup_fails(tmp_path: Path) -> None:
    (tmp_path / "setup.sh").write_text("false\n")
    found = run_script(tmp_path, 0, "trials", "/r", BIGTICKETS_SETUP=str(tmp_path / "setup.sh"))
    assert found == (2, [])


def test_the_last_job_needs_no_srun(tmp_path: Path) -> None:
    code, calls = run_script(tmp_path, 4, "finish", "/r", BIGTICKETS_SECONDS="")
    assert (code, calls) == (4, [])
