"""Claims: one owner, fences, no theft from the living."""

import errno
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bigtickets.files import write_json
from bigtickets.study import claims as module
from bigtickets.study.claims import Claim, Claims, read_claims


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def plant(folder: Path, **changes: object) -> Claim:
    """A claim of somebody else."""
    fields = {"host": module.socket.gethostname(), "pid": dead_pid(), "started": 1.0, **changes}
    claim = replace(Claim("s", 1, "other", "", 0, 0.0), **fields)  # type: ignore[arg-type]
    write_json(folder / f"s.{claim.attempt}", asdict(claim))
    return claim


def test_one_taker_of_many(tmp_path: Path) -> None:
    barrier, taken = threading.Barrier(16), []

    def take(i: int) -> None:
        claims = Claims(tmp_path, f"owner-{i}")
        barrier.wait()
        for step in range(50):
            if claim := claims.take(f"step{step}"):
                taken.append((claim.step_id, i))

    threads = [threading.Thread(target=take, args=(i,)) for i in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(s for s, _ in taken) == sorted(f"step{i}" for i in range(50))


def test_the_living_are_not_robbed(tmp_path: Path) -> None:
    first, second = Claims(tmp_path, "a"), Claims(tmp_path, "b")
    assert first.take("s") is not None
    assert second.take("s") is None


def test_a_dead_owner_on_this_host_is_followed_at_once_and_fenced(tmp_path: Path) -> None:
    old = plant(tmp_path)
    claims = Claims(tmp_path, "b")
    new = claims.take("s")
    assert new is not None
    assert new.attempt == 2
    assert claims.holds(new)
    assert not Claims(tmp_path, "other").holds(old)


def test_a_later_process_with_the_same_pid_does_not_keep_a_claim_alive(tmp_path: Path) -> None:
    plant(tmp_path, pid=os.getpid(), started=1.0)
    assert Claims(tmp_path, "b").take("s") is not None


def test_another_hosts_claim_lasts_until_its_heart_stops(tmp_path: Path) -> None:
    claim = plant(tmp_path, host="elsewhere")
    claims = Claims(tmp_path, "b")
    assert claims.take("s") is None
    path = tmp_path / "s.1"
    long_ago = path.stat().st_mtime - module.STALE_AFTER_S - 5
    os.utime(path, (long_ago, long_ago))
    claims.beat(claim)
    assert claims.take("s") is None
    os.utime(path, (long_ago, long_ago))
    assert claims.take("s") is not None


def test_released_is_free_and_failed_stays_failed_until_reopened(tmp_path: Path) -> None:
    claims = Claims(tmp_path, "a")
    claim = claims.take("s")
    assert claim is not None
    claims.release(claim)
    again = claims.take("s")
    assert again is not None
    claims.release(again, "input", "no such column")
    assert claims.take("s") is None
    assert read_claims(tmp_path)["s"][-1].message == "no such column"
    claims.reopen("s")
    assert claims.take("s") is not None


def test_infra_failures_are_tried_again_a_bounded_number_of_times(tmp_path: Path) -> None:
    claims = Claims(tmp_path, "a")
    tries = 0
    while (claim := claims.take("s")) is not None:
        tries += 1
        claims.release(claim, "infra", "disk full")
    assert tries == module.RETRIED["infra"]


def test_a_step_that_kills_its_processes_counts_as_failed_at_last(tmp_path: Path) -> None:
    claims = Claims(tmp_path, "a")
    for life in range(module.MOST_LIVES):
        claim = claims.take("s")
        assert claim is not None, f"given up after {life} lives"
        # Its process dies without a word.
        write_json(tmp_path / f"s.{claim.attempt}", asdict(replace(claim, started=1.0)))
    assert claims.take("s") is None
    last = claims.last("s")
    assert last is not None
    assert (last.state, last.failure) == ("failed", "oom")
    claims.reopen("s")
    assert claims.take("s") is not None


def test_the_first_word_on_a_failure_stands(tmp_path: Path) -> None:
    claims = Claims(tmp_path, "a")
    claim = claims.take("s")
    assert claim is not None
    claims.release(claim, "oom", "no memory left")
    claims.release(claim, "infra", "another rank hung up")
    claims.release(claim)
    last = claims.last("s")
    assert last is not None
    assert (last.state, last.failure, last.message) == ("failed", "oom", "no memory left")


def test_a_full_disk_leaves_no_claim_of_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, mode: str) -> None:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    claims = Claims(tmp_path, "a")
    monkeypatch.setattr(module.os, "fdopen", full)
    with pytest.raises(OSError, match="No space left"):
        claims.take("s")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert claims.take("s") is not None


def test_a_late_owner_cannot_release_or_commit(tmp_path: Path) -> None:
    plant(tmp_path)
    late = Claims(tmp_path, "other")
    old = late.last("s")
    current = Claims(tmp_path, "b")
    claim = current.take("s")
    assert claim is not None
    assert old is not None
    late.release(old)
    assert current.holds(claim)


def test_after_forgetting_nobody_holds(tmp_path: Path) -> None:
    claims = Claims(tmp_path, "a")
    claim = claims.take("s")
    assert claim is not None
    claims.forget("s")
    assert not claims.holds(claim)
    assert list(tmp_path.iterdir()) == []
