"""A study as steps, each named by a hash of its science.

The way of the data is data -> dense trial -> scores -> ticket -> trial. A step's id is a digest
of what decides its result: not of names, paths or how it is executed. Fields at their default
are left out, so that a new field with a default keeps what has been computed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bigtickets.study.spec import Kind, ModelSpec, StudySpec, TaskSpec

StepName = Literal["data", "trial", "scores", "ticket"]
SCIENCE_VERSION = 1
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
SEEDED_KINDS = ("random", "random_layerwise")


@dataclass(frozen=True)
class Step:
    """One unit of work that has one result in the run folder."""

    id: str
    step: StepName
    needs: tuple[str, ...]
    """Ids of the steps whose results this one reads."""
    label: str
    """For people: model/task/kind-ratio/seed."""
    model: str
    task: str
    data_fraction: float = 1.0
    kind: Kind | Literal["dense"] = "dense"
    ratio: float = 0.0
    seed: int | None = None
    ticket: str | None = None
    """Id of the ticket that a trial trains."""
    dense: str | None = None
    """Id of the dense trial that an importance pass scores."""

    def to_json(self) -> dict[str, Any]:
        """The manifest line."""
        return dataclasses.asdict(self)


def digest(what: str, science: dict[str, Any]) -> str:
    """Sixteen hex digits that name a step by its science."""
    text = CANONICAL.encode([SCIENCE_VERSION, what, science])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed_fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields that differ from their defaults."""
    default = type(value)()
    return {
        f.name: getattr(value, f.name)
        for f in dataclasses.fields(value)
        if getattr(value, f.name) != getattr(default, f.name)
    }


def data_id(model: ModelSpec, task: TaskSpec) -> str:
    """Tokenised data depends on the tokenizer, the rows and the cut."""
    return digest(
        "data",
        {
            "model": model.identity,
            "task": task.identity,
            "max_length": model.training.max_length,
        },
    )


def trial_id(
    model: ModelSpec, task: TaskSpec, fraction: float, seed: int, ticket: str | None, reinit: bool
) -> str:
    """A trial is a model, a task, a subset, a seed, a recipe and a ticket (None: dense)."""
    science: dict[str, Any] = {
        "model": model.identity,
        "task": task.identity,
        "data_fraction": fraction,
        "seed": seed,
        "training": changed_fields(model.training),
        "ticket": ticket,
    }
    if reinit:
        science["reinit"] = True
    return digest("trial", science)


def pretrained_id(model: ModelSpec, task: TaskSpec, fraction: float, seed: int) -> str:
    """The pre-trained model with the fresh head of a seed, on a subset: no recipe is in it."""
    science = {"data": data_id(model, task), "data_fraction": fraction, "seed": seed}
    return digest("pretrained", {"model": model.identity, **science})


def scores_id(study: StudySpec, model: ModelSpec, scored: str) -> str:
    """An importance pass is the model that it scores, the examples and the granularity.

    `scored`: id of the dense trial or of the pre-trained model; it names task and subset too.
    """
    importance = study.importance
    science: dict[str, Any] = {
        "of": scored,
        "at": importance.at,
        "granularity": importance.granularity,
        "examples": importance.examples,
        "units": sorted(study.tickets.units),
    }
    if importance.granularity == "legacy_batch":
        # Only here do batch and world size decide the result.
        science["batch"] = importance.batch
        science["world_size"] = model.execution.processes
    return digest("scores", science)


def ticket_id(study: StudySpec, scores: str, kind: str, ratio: float, seed: int | None) -> str:
    """A ticket is scores, a rule and a ratio; random ones have a seed too."""
    tickets = study.tickets
    return digest(
        "ticket",
        {
            "scores": scores,
            "kind": kind,
            "ratio": ratio,
            "seed": seed,
            "normalize": study.importance.normalize,
            "budget": tickets.budget,
            "min_heads": tickets.min_heads,
            "min_neurons": tickets.min_neurons,
        },
    )


def expand(study: StudySpec) -> list[Step]:
    """All steps of a study, each once, in an order in which every step follows what it needs."""
    steps: dict[str, Step] = {}
    for model in study.models:
        for task in study.tasks:
            for fraction in study.data_fractions:
                for step in _Cell(study, model, task, fraction).steps():
                    steps.setdefault(step.id, step)
    order = {"data": 0, "trial": 1, "scores": 2, "ticket": 3}
    # Dense trials and scores first: everything else waits for them.
    return sorted(steps.values(), key=lambda s: 4 if s.ticket else order[s.step])


def before_trials(steps: Iterable[Step]) -> set[str]:
    """Ids of the steps that others wait for: data, scored dense trials, scores, tickets."""
    return {need for step in steps for need in step.needs}


@dataclass(frozen=True)
class _Cell:
    """One model on one task and subset: what shares data, dense trials and scores."""

    study: StudySpec
    model: ModelSpec
    task: TaskSpec
    fraction: float

    def steps(self) -> Iterator[Step]:
        data = data_id(self.model, self.task)
        yield self._step(data, "data", (), "data")
        dense = {s: self._trial_id(s, None, False) for s in self.study.seeds}
        for seed in self._dense_seeds():
            yield self._step(dense[seed], "trial", (data,), f"dense/seed{seed}", seed=seed)
        for scored_seed, seeds in self._scored_seeds() if self._prunes else ():
            yield from self._pruned(data, dense[scored_seed], scored_seed, seeds)

    def _step(
        self, step_id: str, step: StepName, needs: tuple[str, ...], name: str, **more: Any
    ) -> Step:
        place = f"{self.model.name}/{self.task.name}"
        if self.fraction != 1 and step != "data":
            place += f"/{self.fraction:g}"
        return Step(
            id=step_id,
            step=step,
            needs=needs,
            label=f"{place}/{name}",
            model=self.model.name,
            task=self.task.name,
            data_fraction=self.fraction,
            **more,
        )

    @property
    def _prunes(self) -> bool:
        return any(ratio > 0 for ratio in self.study.tickets.ratios)

    def _trial_id(self, seed: int, ticket: str | None, reinit: bool) -> str:
        return trial_id(self.model, self.task, self.fraction, seed, ticket, reinit)

    def _dense_seeds(self) -> tuple[int, ...]:
        """Without ratio 0 only the dense models that are scored are trained."""
        if 0.0 in self.study.tickets.ratios:
            return self.study.seeds
        if self.study.importance.at == "pretrained":
            return ()
        return tuple(seed for seed, _ in self._scored_seeds())

    def _scored_seeds(self) -> list[tuple[int, tuple[int, ...]]]:
        """(seed whose dense model is scored, seeds that train the resulting tickets)."""
        seeds = self.study.seeds
        if self.study.importance.seeds == "each":
            return [(seed, (seed,)) for seed in seeds]
        return [(seeds[0], seeds)]

    def _pruned(
        self, data: str, dense: str, scored_seed: int, seeds: tuple[int, ...]
    ) -> Iterator[Step]:
        name, finetuned = f"scores/seed{scored_seed}", self.study.importance.at == "finetuned"
        scored = dense
        if not finetuned:
            scored = pretrained_id(self.model, self.task, self.fraction, scored_seed)
        scores = scores_id(self.study, self.model, scored)
        needs, trained = ((data, dense), dense) if finetuned else ((data,), None)
        yield self._step(scores, "scores", needs, name, seed=scored_seed, dense=trained)
        for ratio in self.study.tickets.ratios:
            for kind in self.study.tickets.kinds_at(ratio):
                for seed in seeds:
                    yield from self._ticket_and_trial(data, scores, kind, ratio, seed)

    def _ticket_and_trial(
        self, data: str, scores: str, kind: Kind, ratio: float, seed: int
    ) -> Iterator[Step]:
        # A re-initialised ticket is the winning one with other weights.
        structure: Kind = "winning" if kind == "reinit" else kind
        draw = seed if kind in SEEDED_KINDS else None
        ticket = ticket_id(self.study, scores, structure, ratio, draw)
        name = f"{structure}-{ratio:g}" + (f"/draw{draw}" if draw is not None else "")
        yield self._step(
            ticket, "ticket", (scores,), f"{name}/ticket", kind=structure, ratio=ratio, seed=draw
        )
        yield self._step(
            self._trial_id(seed, ticket, kind == "reinit"),
            "trial",
            (data, ticket),
            f"{kind}-{ratio:g}/seed{seed}",
            kind=kind,
            ratio=ratio,
            seed=seed,
            ticket=ticket,
        )
