"""How long workers were alive, and what they spent the time on: one small file per life."""

import contextlib
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bigtickets.errors import BigticketsError
from bigtickets.files import read_json, write_json
from bigtickets.study.folder import RunFolder

WRITE_EVERY_S = 10.0
"""A life that ends without a word is known up to that."""


@dataclass
class Life:
    """One life of one worker, from its start to the last time that it was seen."""

    owner: str
    """As in its claims."""
    host: str
    log: str
    device: str
    processes: int
    """Ranks, each with a device of its own."""
    started: float
    """Seconds since the epoch, by the worker's clock."""
    alive_s: float = 0.0
    trained_s: float = 0.0
    """Inside the training loop of trials that this life finished, earlier lives included."""
    steps: dict[str, tuple[int, float]] = field(default_factory=dict)
    """(finished in this life, seconds from claim to result) by kind and model of a step."""


class Diary:
    """Keeps a life on file while the worker works; as a context manager."""

    def __init__(self, folder: RunFolder, life: Life) -> None:
        self.life = life
        self._path = folder.lives / f"{life.owner}.json"
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "Diary":
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._write()

    def finished(self, kind: str, seconds: float, trained_s: float = 0.0) -> None:
        """Note a finished step; `kind`: stage and model."""
        with self._lock:
            count, spent = self.life.steps.get(kind, (0, 0.0))
            self.life.steps[kind] = (count + 1, spent + seconds)
            self.life.trained_s += trained_s

    def _keep(self) -> None:
        while not self._over.wait(WRITE_EVERY_S):
            self._write()

    def _write(self) -> None:
        with self._lock:
            self.life.alive_s = time.time() - self.life.started
            text = asdict(self.life)
        # Nobody's work depends on it: a full disk must not end the worker.
        with contextlib.suppress(OSError):
            write_json(self._path, text)


def read_lives(folder: RunFolder) -> list[Life]:
    """All lives of a run's workers."""
    return [life for path in sorted(folder.lives.glob("[!.]*")) if (life := _read(path))]


def _read(path: Path) -> Life | None:
    try:
        return Life(**read_json(path))
    except (BigticketsError, TypeError):
        return None
