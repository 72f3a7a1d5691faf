"""The study file as frozen dataclasses: every key, its default and what it means.

`bigtickets.study.reader` fills them from YAML and refuses what they don't know.
Fields of `ExecutionSpec` say how to compute, never what: they enter no hash.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

Unit = Literal["heads", "neurons", "blocks"]
Kind = Literal["winning", "losing", "random", "random_layerwise", "reinit"]
Budget = Literal["per_type", "joint"]
Granularity = Literal["example", "token", "square", "legacy_batch"]
Normalize = Literal["layer", "none", "global"]
ScoredModel = Literal["finetuned", "pretrained"]
Precision = Literal["auto", "bf16", "fp32"]
Attention = Literal["sdpa", "eager"]
MetricInput = Literal["classes", "probabilities", "values"]


@dataclass(frozen=True)
class TicketsSpec:
    """Which tickets are cut."""

    units: tuple[Unit, ...] = ("heads", "neurons")
    """What may be removed; `neurons` and `blocks` exclude each other."""
    ratios: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    """Fractions of the prunable encoder weights to remove, each in [0, 1); 0 is the dense model."""
    kinds: tuple[Kind, ...] = ("winning", "random")
    """Which units a ticket removes: see docs/glossary.md."""
    control_ratios: tuple[float, ...] | None = None
    """Those of `ratios` at which the kinds other than `winning` are cut too; all if not given."""
    budget: Budget = "per_type"
    """`per_type`: the same ratio of each unit type; `joint`: one ranking by score per weight."""
    min_heads: int = 1
    """Heads that stay in every layer; 0 allows a layer to lose its attention."""
    min_neurons: int = 1
    """Neurons that stay in every layer; 0 allows a layer to lose its FFN."""

    def kinds_at(self, ratio: float) -> tuple[Kind, ...]:
        """The kinds that are cut at a ratio; none at 0, which is the dense model."""
        if ratio == 0:
            return ()
        if self.control_ratios is None or ratio in self.control_ratios:
            return self.kinds
        return tuple(kind for kind in self.kinds if kind == "winning")


@dataclass(frozen=True)
class ImportanceSpec:
    """How units are scored."""

    granularity: Granularity = "example"
    """Where the absolute value (or square) is taken; see `bigtickets.tickets.importance`."""
    normalize: Normalize = "layer"
    """L2 norm inside each layer and type, over all layers of a type (`global`), or `none`."""
    at: ScoredModel = "finetuned"
    """The model that is scored: the fine-tuned dense one, or the pre-trained one."""
    examples: int | Literal["all"] = "all"
    """Training examples in the pass; a number takes a class-stratified subset."""
    seeds: Literal["one", "each"] = "one"
    """`one`: tickets of the first seed's dense model serve all seeds; `each`: one per seed."""
    batch: int | None = None
    """Micro-batch of `legacy_batch`, whose scores depend on it; not allowed otherwise."""


@dataclass(frozen=True)
class TrainingSpec:
    """How one model is fine-tuned."""

    epochs: float = 3.0
    """Passes over the training split; fractions are allowed."""
    max_steps: int | None = None
    """Stops after that many optimizer steps, if sooner; the schedule is then that long."""
    learning_rate: float = 2e-5
    """Peak of the schedule: linear warm-up, then linear decay to 0."""
    batch_size: int = 32
    """Examples per optimizer step, over all processes together."""
    warmup: float = 0.1
    """Share of the steps that warm up."""
    weight_decay: float = 0.01
    """AdamW's, on matrices only: not on biases and norms."""
    max_length: int = 128
    """Tokens that an example is cut to."""
    dropout: float = 0.1
    """On hidden states and before the task head; masks depend on seed, step and example alone.
    Attention probabilities get none: fused kernels cannot be given such a mask."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this global norm; 0 turns it off."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8


@dataclass(frozen=True)
class ExecutionSpec:
    """How it is computed. Nothing here may change a result beyond rounding."""

    zero: int | Literal["auto"] = 0
    """DeepSpeed's ZeRO stage: how optimizer state, gradients and weights are sharded; `auto`: the
    lowest that fits the device, as `plan` says."""
    offload: bool = False
    """ZeRO 2: optimizer state in the host's memory; ZeRO 3: the weights too."""
    precision: Precision = "auto"
    """`bf16`: autocast where the device computes in it, float32 elsewhere; `auto`: the same."""
    processes_per_trial: int | Literal["auto"] = 1
    """Ranks of one torchrun group; `auto`: the fewest with which a trial fits."""
    micro_batch: int | Literal["auto"] = "auto"
    """Examples per process that go through the model at once."""
    attention: Attention = "sdpa"
    """Attention kernel."""
    gradient_checkpointing: bool = False
    """Computes activations twice to store fewer."""
    ds_config: str | None = None
    """A DeepSpeed JSON file of one's own in place of those in `ds_configs/`."""
    threads: int | Literal["auto"] = "auto"
    """CPU threads per process; `auto` shares the cores among the slots."""
    checkpoint_every_s: float = 120.0
    """Seconds between checkpoints of a trial."""
    data_dir: str | None = None
    """Folder with one sub-folder per GLUE task, for machines without the Hub."""

    @property
    def stage(self) -> int:
        """`zero`, once `auto` has been replaced by a choice."""
        return _number(self.zero, "execution.zero")

    @property
    def processes(self) -> int:
        """`processes_per_trial`, once `auto` has been replaced by a choice."""
        return _number(self.processes_per_trial, "execution.processes_per_trial")


@dataclass(frozen=True)
class AnalysisSpec:
    """What the results are to show. Nothing here changes a step: it enters no hash."""

    precision: float = 1.0
    """Half width in points that the 95 % interval of a gain should have; `plan` says how many seeds
    that takes."""


@dataclass(frozen=True)
class ModelSpec:
    """One pre-trained encoder."""

    name: str
    """Short name for tables; enters no hash."""
    path: str
    """Local directory (made absolute) or Hub id."""
    identity: str
    """What enters the hashes: digest of a local model's files, or Hub id and revision."""
    revision: str | None = None
    """Hub revision; the default branch if not given."""
    trust_remote_code: bool = False
    """Whether code of the model's repository may run. Off unless a study says so."""
    training: TrainingSpec = field(default_factory=TrainingSpec)
    """The study's training keys with this model's overrides."""
    execution: ExecutionSpec = field(default_factory=ExecutionSpec)
    """The study's execution keys with this model's overrides."""


@dataclass(frozen=True)
class MetricModule:
    """A headline metric that is a module of the `evaluate` library: a script with a `_compute`."""

    name: str
    """The script's name without its ending."""
    path: str
    """The script; empty while a module of the Hub is not on this machine."""
    digest: str
    """SHA-256 of the script, in hex; Hub id and revision while the script is not here."""
    result: str | None = None
    """Key of the headline among the module's results; None: its only one."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `compute`."""
    input: MetricInput = "classes"
    """What it is given: the likeliest class, the probabilities (of class 1 where there are two),
    or the model's numbers as they are, which makes the task a regression."""
    lower_is_better: bool = False
    """The score is then minus the result."""
    points: float = 100.0
    """Points of the report that one unit of the result is worth; enters no hash."""
    hub: str | None = None
    """Hub id of the space that has the script."""
    revision: str | None = None
    """Revision on the Hub; the default branch if not given."""
    trust_remote_code: bool = False
    """Whether a script of the Hub may be fetched and run."""


@dataclass(frozen=True)
class TaskSpec:
    """One task: a GLUE name, or files with columns."""

    name: str
    """GLUE name or a short name for tables."""
    identity: str
    """What enters the hashes: `glue/<name>`, or a digest of the files and columns."""
    text: tuple[str, ...]
    """One or two text columns."""
    label: str
    """Label column."""
    metric: str
    """Name of the headline metric, see `bigtickets.study.tasks`; `module:...` for a module."""
    labels: tuple[str, ...] | None
    """Class names in order of their index; None for regression, or read from the training split."""
    regression: bool = False
    glue: bool = False
    """Whether `name` names a GLUE task, to be loaded from the Hub or `data_dir`."""
    train: tuple[str, ...] = ()
    """Files of the training split."""
    validation: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Evaluation splits as (name, files); the first is the headline, MNLI has two."""
    module: MetricModule | None = None
    """The metric, if it is none of the table's."""


@dataclass(frozen=True)
class StudySpec:
    """One study file."""

    study: str
    models: tuple[ModelSpec, ...]
    tasks: tuple[TaskSpec, ...]
    data_fractions: tuple[float, ...] = (1.0,)
    """Shares of the training split; nested, class-stratified."""
    tickets: TicketsSpec = field(default_factory=TicketsSpec)
    importance: ImportanceSpec = field(default_factory=ImportanceSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    execution: ExecutionSpec = field(default_factory=ExecutionSpec)
    analysis: AnalysisSpec = field(default_factory=AnalysisSpec)


def _number(value: int | Literal["auto"], key: str) -> int:
    if value == "auto":
        raise ValueError(f"{key}: auto; a study is resolved before it is run")
    return value


def exact(number: float) -> Fraction:
    """The decimal number that a person wrote: 0.3 is 3/10, not the nearest binary fraction."""
    return Fraction(repr(number))
