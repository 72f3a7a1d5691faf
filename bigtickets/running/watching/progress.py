"""What a person sees while a study runs: a bar on a terminal, plain lines in a log."""

import sys
import time
from typing import Any

from tqdm import tqdm

from bigtickets.errors import BigticketsError
from bigtickets.files import read_json
from bigtickets.study.folder import RunFolder
from bigtickets.study.steps import Step


class Progress:
    """Shows steps as they get done."""

    def __init__(self, folder: RunFolder, steps: list[Step], done: set[str]) -> None:
        self._folder = folder
        self._steps = {step.id: step for step in steps}
        self._shown = done & set(self._steps)
        self._started = time.monotonic()
        self._bar = tqdm(
            total=len(steps),
            initial=len(self._shown),
            unit="step",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def show(self, done: set[str]) -> None:
        """Say what is new in `done`."""
        new = [self._steps[i] for i in self._steps if i in done and i not in self._shown]
        for step in new:
            self._shown.add(step.id)
            self._bar.update()
            if step.step != "ticket":  # there are many and each takes milliseconds
                self._line(step)

    def close(self) -> None:
        """Finish the bar."""
        self._bar.close()

    def _line(self, step: Step) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        place = f"[{len(self._shown)}/{len(self._steps)} {minutes:02d}:{seconds:02d}]"
        self._bar.write(f"{place} {step.label}{self._result(step)}", file=sys.stdout)
        sys.stdout.flush()

    def _result(self, step: Step) -> str:
        if step.step == "data":
            return ""
        try:
            record: dict[str, Any] = read_json(self._folder.result(step.step, step.id))
        except BigticketsError:
            return ""
        seconds = record["timings"].get("total_s", record["timings"].get("score_s", 0))
        if step.step == "scores":
            return f"  {record['counts']['examples']} examples in {seconds:.1f} s"
        score = record["metrics"]["score"]
        flag = f", degenerate: {record['degenerate']}" if record["degenerate"] else ""
        shown = "none" if score is None else f"{score:.4f}"
        return f"  {record['headline']} {shown}{flag} in {seconds:.1f} s"
