"""The run folder: every file name of it stands here and nowhere else."""

from dataclasses import dataclass
from pathlib import Path

from bigtickets.errors import InputError


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder; makes nothing by itself."""

    root: Path

    @property
    def study_yaml(self) -> Path:
        """The study as it was asked for, every default written out."""
        return self.root / "study.yaml"

    @property
    def manifest(self) -> Path:
        """One JSON line per step."""
        return self.root / "manifest.jsonl"

    @property
    def environment(self) -> Path:
        """Versions, commit and difference to it at the last start."""
        return self.root / "environment.json"

    @property
    def claims(self) -> Path:
        """Who works on what; see `bigtickets.study.claims`."""
        return self.root / "claims"

    @property
    def logs(self) -> Path:
        """One text file per worker."""
        return self.root / "logs"

    @property
    def slurm(self) -> Path:
        """Cluster file, setup lines, journal of submitted jobs; see `bigtickets.running.slurm`."""
        return self.root / "slurm"

    @property
    def lives(self) -> Path:
        """One small file per life of a worker; see `bigtickets.study.lives`."""
        return self.logs / "lives"

    @property
    def tb(self) -> Path:
        """TensorBoard's folder: `_study`, and links to the trials under readable names."""
        return self.root / "tb"

    @property
    def report(self) -> Path:
        """Tables, figures and pages."""
        return self.root / "report"

    @property
    def metrics(self) -> Path:
        """Copies of the scripts of metric modules, each in a folder named by its digest."""
        return self.root / "metrics"

    @property
    def trials(self) -> Path:
        """One folder per finished trial."""
        return self.root / "trials"

    @property
    def scores(self) -> Path:
        """One folder per finished importance pass."""
        return self.root / "scores"

    @property
    def tickets(self) -> Path:
        """One JSON file per ticket."""
        return self.root / "tickets"

    def data(self, step_id: str) -> Path:
        """Tokenised splits of one task for one tokenizer."""
        return self.root / "data" / step_id

    def trial(self, step_id: str) -> Path:
        """Record, metrics, predictions and events of one trial."""
        return self.trials / step_id

    def score(self, step_id: str) -> Path:
        """Scores and record of one importance pass."""
        return self.scores / step_id

    def ticket(self, step_id: str) -> Path:
        """One ticket."""
        return self.tickets / f"{step_id}.json"

    def work(self, step_id: str) -> Path:
        """Unfinished work on a step, one sub-folder per attempt; gone once the step is done."""
        return self.root / "work" / step_id

    def attempt(self, step_id: str, attempt: int) -> Path:
        """Where one attempt writes until it commits."""
        return self.work(step_id) / f"attempt-{attempt}"

    def dense_weights(self, step_id: str) -> Path:
        """Fine-tuned weights of a dense trial, kept for the importance pass."""
        return self.root / "weights" / f"{step_id}.safetensors"

    def result(self, step: str, step_id: str) -> Path:
        """The file whose presence means that a step is done."""
        if step == "ticket":
            return self.ticket(step_id)
        folder = {"data": self.data, "trial": self.trial, "scores": self.score}[step](step_id)
        return folder / "record.json"


def open_run(path: Path) -> RunFolder:
    """An existing run folder; InputError if `path` is none."""
    folder = RunFolder(path)
    if not folder.manifest.is_file():
        raise InputError(
            f"{path}: not a run folder (no manifest.jsonl); "
            "pass the folder that `bigtickets run` made, by default runs/<study>"
        )
    return folder
