"""Who works on a step: claims that no lock, no clock and no late writer can break.

Every attempt at a step is one file `claims/<id>.<attempt>`, made with O_CREAT|O_EXCL, so exactly
one worker gets each number. The highest number owns the step. A dead owner is never deleted; the
next worker takes the next number, and whoever comes back late finds a higher one (a fence) and
discards its work. Locks (flock) are not used: on Lustre and GPFS they succeed for everyone.
"""

import contextlib
import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import psutil

from bigtickets.files import write_json

State = Literal["running", "released", "failed"]
FailureClass = Literal["input", "oom", "diverged", "infra", "preempted", "defect"]
HEARTBEAT_S = 2.0
STALE_AFTER_S = 60.0
CLOCK_READ_EVERY_S = 5.0
CLOCK_STEP_S = 30.0
"""By which a process's start may seem to move, when the machine's clock is set."""
MOST_LIVES = 12
"""Deaths of a step's process in a row before it counts as failed."""
# Only these are tried again without being asked, and not for ever.
RETRIED: dict[str, int] = {"infra": 3, "preempted": 1000}


@dataclass(frozen=True)
class Claim:
    """One attempt at a step, as its file says it."""

    step_id: str
    attempt: int
    owner: str
    """Unique per worker life."""
    host: str
    pid: int
    started: float
    """Start time of the process, which tells it from a later one with the same pid."""
    state: State = "running"
    failure: FailureClass | None = None
    message: str = ""
    log: str = ""
    """File name of the worker's log in the run folder."""


def new_owner() -> str:
    """A name that no other life of any worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Claims:
    """The claims of one run folder, as one worker sees and makes them."""

    def __init__(self, folder: Path, owner: str, log: str = "") -> None:
        self.folder, self.owner, self.log = folder, owner, log
        self._clock = (float("-inf"), 0.0)
        """When the file system's clock was last read, and what it said."""
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, step_id: str) -> Claim | None:
        """Own the step, or None if somebody else does, or it failed for good."""
        last = self.last(step_id)
        if last is not None and not self._free(last):
            return None
        return self._create(step_id, last.attempt + 1 if last else 1)

    def last(self, step_id: str) -> Claim | None:
        """The newest attempt."""
        attempts = self.attempts(step_id)
        return attempts[-1] if attempts else None

    def attempts(self, step_id: str) -> list[Claim]:
        """All attempts, oldest first. A file still empty counts as running."""
        return attempts_at(self.folder, step_id)

    def holds(self, claim: Claim) -> bool:
        """Whether this attempt still owns the step: the fence before every commit."""
        last = self.last(claim.step_id)
        return last is not None and (last.attempt, last.owner) == (claim.attempt, claim.owner)

    def beat(self, claim: Claim) -> None:
        """Say that the owner lives."""
        # A file system that hiccups must not end the heart: the next beat may get through.
        with contextlib.suppress(OSError):
            os.utime(self._path(claim))

    def release(self, claim: Claim, failure: FailureClass | None = None, message: str = "") -> None:
        """Give the step back: to anybody, or as failed."""
        last = self.last(claim.step_id)
        # The first word stands: other ranks fail too when one has, and know less of why.
        if last is None or not self.holds(claim) or last.state != "running":
            return
        state: State = "failed" if failure else "released"
        write_json(
            self._path(claim), asdict(replace(claim, state=state, failure=failure, message=message))
        )

    def forget(self, step_id: str) -> None:
        """Remove the claims of a step that has its record."""
        for path in reversed(_paths(self.folder, step_id)):
            path.unlink(missing_ok=True)

    def reopen(self, step_id: str) -> None:
        """Let a failed step be tried again: a new, released attempt on top."""
        last = self.last(step_id)
        if last is not None and (claim := self._create(step_id, last.attempt + 1)):
            self.release(claim)

    def _create(self, step_id: str, attempt: int) -> Claim | None:
        claim = Claim(
            step_id=step_id,
            attempt=attempt,
            owner=self.owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            log=self.log,
        )
        try:
            descriptor = os.open(self._path(claim), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        try:
            # Not fsynced: its name is what claims, and of a crash of the file system neither the
            # owner nor this file needs to survive.
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(asdict(claim)))
        except OSError:
            # A full disk: an empty file would be a claim of nobody that nothing ends.
            self._path(claim).unlink(missing_ok=True)
            raise
        return claim

    def _free(self, last: Claim) -> bool:
        if last.state == "released":
            return True
        if last.state == "failed":
            return tried_again(self.attempts(last.step_id))
        if not self._dead(last):
            return False
        if self._lives(last.step_id) < MOST_LIVES:
            return True
        # Whatever kills the process (memory, a crash in a library) would do so for ever.
        message = f"its process was killed {MOST_LIVES} times; see its log, then retry"
        failed = replace(last, state="failed", failure="oom", message=message)
        write_json(self._path(last), asdict(failed))
        return False

    def _lives(self, step_id: str) -> int:
        """Attempts in a row, up to now, whose process died without a word."""
        lives = 0
        for claim in reversed(self.attempts(step_id)):
            if claim.state != "running":
                break
            lives += 1
        return lives

    def _dead(self, claim: Claim) -> bool:
        """Its process is gone (same host), or its heart has not beaten for too long."""
        if claim.host == socket.gethostname():
            return lost_here(claim)
        return self._age_s(self._path(claim)) > STALE_AFTER_S

    def _age_s(self, path: Path) -> float:
        """Age by the file system's own clock: hosts may disagree on the time."""
        if time.monotonic() - self._clock[0] > CLOCK_READ_EVERY_S:
            self._clock = (time.monotonic(), self._read_clock())
        try:
            return self._clock[1] - path.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _read_clock(self) -> float:
        file = self.folder / f".clock-{self.owner}"
        try:
            file.touch()
            return file.stat().st_mtime
        finally:
            file.unlink(missing_ok=True)

    def _path(self, claim: Claim) -> Path:
        return self.folder / f"{claim.step_id}.{claim.attempt}"


def tried_again(attempts: list[Claim]) -> bool:
    """Whether a step whose last attempt failed is tried again without being asked."""
    last = attempts[-1].failure
    return sum(claim.failure == last for claim in attempts) < RETRIED.get(last or "", 0)


def lost_here(claim: Claim) -> bool:
    """Whether a running claim's process was on this host and is gone."""
    here = claim.state == "running" and claim.host == socket.gethostname()
    return here and not process_alive(claim.pid, claim.started)


def process_alive(pid: int, started: float) -> bool:
    """Whether that process, not a later one with its number, runs on this host."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < CLOCK_STEP_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def read_claim(path: Path) -> Claim:
    """One claim file; one whose writer has not got to its text yet is a running one of nobody."""
    try:
        return Claim(**json.loads(path.read_text()))
    except (json.JSONDecodeError, FileNotFoundError):
        step_id, attempt = path.name.rsplit(".", 1)
        return Claim(step_id, int(attempt), owner="", host="", pid=0, started=time.time())


def attempts_at(folder: Path, step_id: str) -> list[Claim]:
    """All attempts at a step, oldest first."""
    return [read_claim(path) for path in _paths(folder, step_id)]


def read_claims(folder: Path) -> dict[str, list[Claim]]:
    """All claims of a run folder by step id, oldest attempt first."""
    found: dict[str, list[Claim]] = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        if not entry.name.startswith("."):
            claim = read_claim(Path(entry.path))
            found.setdefault(claim.step_id, []).append(claim)
    return {key: sorted(claims, key=lambda c: c.attempt) for key, claims in found.items()}


def newest_attempts(folder: Path) -> dict[str, int]:
    """Number of the newest attempt at every step that has claims; no claim is read."""
    newest: dict[str, int] = {}
    for name in os.listdir(folder) if folder.is_dir() else ():
        if not name.startswith("."):
            step_id, attempt = name.rsplit(".", 1)
            newest[step_id] = max(newest.get(step_id, 0), int(attempt))
    return newest


def _paths(folder: Path, step_id: str) -> list[Path]:
    """Claim files of a step, oldest attempt first; numbers have no gaps, so no folder is listed."""
    paths: list[Path] = []
    while (path := folder / f"{step_id}.{len(paths) + 1}").exists():
        paths.append(path)
    return paths
