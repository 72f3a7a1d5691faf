"""What a run says while it goes on: metrics.jsonl and TensorBoard scalars."""

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"


class MetricsLog:
    """Appends lines to metrics.jsonl and their numbers to an event file beside it."""

    def __init__(self, folder: Path, earlier: list[dict[str, Any]]) -> None:
        """`earlier`: lines of the attempt whose checkpoint this one goes on from."""
        folder.mkdir(parents=True, exist_ok=True)
        # `earlier` is written again: a second event file would show every point twice.
        for events in folder.glob("events.out.tfevents.*"):
            events.unlink()
        self._file = (folder / METRICS).open("w")
        self._writer = SummaryWriter(str(folder))
        for line in earlier:
            self.add(line)

    def add(self, line: dict[str, Any]) -> None:
        """One line; numbers under `eval` become eval/<name>, the others train/<name>."""
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name == "eval":
                for key, number in value.items():
                    self._scalar(f"eval/{key}", number, line["step"])
            elif name != "step":
                self._scalar(f"train/{name}", value, line["step"])

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._writer.close()

    def _scalar(self, tag: str, value: float | None, step: int) -> None:
        if value is not None:
            self._writer.add_scalar(tag, value, step)


def read_metrics(folder: Path, up_to_step: int) -> list[dict[str, Any]]:
    """The lines of an attempt up to a step; a last line cut short by a kill is left out."""
    path = folder / METRICS
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        if line["step"] <= up_to_step:
            lines.append(line)
    return lines
