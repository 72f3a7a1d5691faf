"""Steps and their identities. Golden values: a change here orphans everybody's results."""

from dataclasses import replace

import pytest

from bigtickets.study.spec import (
    ExecutionSpec,
    ImportanceSpec,
    ModelSpec,
    StudySpec,
    TaskSpec,
    TicketsSpec,
    TrainingSpec,
)
from bigtickets.study.steps import expand

MODEL = ModelSpec(name="m", path="/somewhere", identity="local:abc")
TASK = TaskSpec(
    name="t",
    identity="files:def",
    text=("sentence",),
    label="label",
    metric="accuracy",
    labels=None,
    train=("/a.tsv",),
    validation=(("validation", ("/b.tsv",)),),
)
STUDY = StudySpec(
    study="s",
    models=(MODEL,),
    tasks=(TASK,),
    tickets=TicketsSpec(ratios=(0.0, 0.5), kinds=("winning", "random", "reinit")),
    seeds=(0, 1),
)


def ids(study: StudySpec) -> dict[str, str]:
    return {step.label: step.id for step in expand(study)}


def test_golden_ids() -> None:
    assert ids(STUDY) == GOLDEN


def test_every_step_once_and_needs_exist() -> None:
    steps = expand(STUDY)
    known = {step.id for step in steps}
    assert len(known) == len(steps)
    assert all(need in known for step in steps for need in step.needs)


def test_ratio_zero_is_run_once_for_all_kinds() -> None:
    dense = [s for s in expand(STUDY) if s.step == "trial" and s.ratio == 0]
    assert [s.seed for s in dense] == [0, 1]
    assert all(s.kind == "dense" for s in dense)


def test_reinit_shares_the_winning_ticket() -> None:
    steps = expand(STUDY)
    of = {(s.kind, s.seed): s.ticket for s in steps if s.ticket}
    assert of["winning", 0] == of["reinit", 0]
    assert of["random", 0] != of["random", 1]


def renamed(study: StudySpec) -> StudySpec:
    model = replace(MODEL, name="other", path="/elsewhere")
    return replace(study, study="x", models=(model,), tasks=(replace(TASK, name="y"),))


EXECUTION = ExecutionSpec(
    zero=3,
    offload=True,
    precision="bf16",
    processes_per_trial=4,
    micro_batch=2,
    attention="eager",
    gradient_checkpointing=True,
    ds_config="/x.json",
    threads=7,
    checkpoint_every_s=1,
    data_dir="/data",
)


def test_names_paths_and_execution_enter_no_hash() -> None:
    before = sorted(ids(STUDY).values())
    assert sorted(ids(renamed(STUDY)).values()) == before
    model = replace(MODEL, execution=EXECUTION)
    executed = replace(STUDY, execution=EXECUTION, models=(model,))
    assert sorted(ids(executed).values()) == before


def test_every_execution_field_is_covered_above() -> None:
    default = ExecutionSpec()
    for name, value in vars(EXECUTION).items():
        assert value != getattr(default, name), name


@pytest.mark.parametrize(
    "training",
    [{"epochs": 4.0}, {"learning_rate": 1e-5}, {"batch_size": 16}, {"dropout": 0.0}],
    ids=lambda t: next(iter(t)),
)
def test_the_recipe_enters(training: dict) -> None:
    changed = replace(STUDY, models=(replace(MODEL, training=TrainingSpec(**training)),))
    trials = {s.id for s in expand(STUDY) if s.step == "trial"}
    assert not trials & {s.id for s in expand(changed) if s.step == "trial"}


def test_more_ratios_and_seeds_keep_what_there_is() -> None:
    tickets = replace(STUDY.tickets, ratios=(0.0, 0.25, 0.5))
    more = replace(STUDY, tickets=tickets, seeds=(0, 1, 2))
    assert set(ids(STUDY).values()) <= set(ids(more).values())


def test_controls_may_be_cut_at_fewer_ratios() -> None:
    tickets = replace(STUDY.tickets, ratios=(0.0, 0.25, 0.5, 0.75))
    every = replace(STUDY, tickets=tickets)
    fewer = replace(STUDY, tickets=replace(tickets, control_ratios=(0.5,)))
    cut: dict[str, set[float]] = {}
    for step in expand(fewer):
        if step.step == "trial":
            cut.setdefault(step.kind, set()).add(step.ratio)
    assert cut == {"dense": {0}, "winning": {0.25, 0.5, 0.75}, "random": {0.5}, "reinit": {0.5}}
    assert ids(fewer).items() <= ids(every).items(), "what is left is the same"


def test_normalisation_reuses_the_scores() -> None:
    other = replace(STUDY, importance=ImportanceSpec(normalize="none"))
    before, after = ids(STUDY), ids(other)
    assert before["m/t/scores/seed0"] == after["m/t/scores/seed0"]
    assert before["m/t/winning-0.5/ticket"] != after["m/t/winning-0.5/ticket"]


def test_scores_of_the_pretrained_model_know_no_recipe() -> None:
    def scores(study: StudySpec) -> list[tuple[str, tuple[str, ...], str | None]]:
        return [(s.id, s.needs, s.dense) for s in expand(study) if s.step == "scores"]

    at = replace(STUDY, importance=ImportanceSpec(at="pretrained"))
    longer = replace(at, models=(replace(MODEL, training=TrainingSpec(epochs=9.0)),))
    cut = replace(at, models=(replace(MODEL, training=TrainingSpec(max_length=32)),))
    assert scores(at) == scores(longer) != scores(cut)
    assert scores(at) != scores(STUDY)
    assert [dense for _, _, dense in scores(at)] == [None], "no trained weights are read"


def test_legacy_scores_depend_on_batch_and_world_size() -> None:
    def scores(batch: int, processes: int) -> str:
        execution = ExecutionSpec(processes_per_trial=processes)
        study = replace(
            STUDY,
            models=(replace(MODEL, execution=execution),),
            importance=ImportanceSpec(granularity="legacy_batch", batch=batch),
        )
        return ids(study)["m/t/scores/seed0"]

    assert len({scores(8, 1), scores(16, 1), scores(8, 2)}) == 3


def test_one_ticket_set_per_seed_if_asked() -> None:
    study = replace(STUDY, importance=ImportanceSpec(seeds="each"))
    steps = expand(study)
    assert [s.seed for s in steps if s.step == "scores"] == [0, 1]
    winning = {s.seed: s.ticket for s in steps if s.kind == "winning" and s.ticket}
    assert winning[0] != winning[1]


def test_without_ratio_zero_only_scored_dense_models_are_trained() -> None:
    study = replace(STUDY, tickets=TicketsSpec(ratios=(0.5,)))
    dense = [s.seed for s in expand(study) if s.step == "trial" and s.kind == "dense"]
    assert dense == [0]


GOLDEN = {
    "m/t/data": "87c124eb39a7dce1",
    "m/t/dense/seed0": "44d9dd6f4ff53335",
    "m/t/dense/seed1": "31ead2dce59e11b4",
    "m/t/scores/seed0": "14c296fcbc35218c",
    "m/t/winning-0.5/ticket": "7d2ccb18d0142569",
    "m/t/random-0.5/draw0/ticket": "22f11bdd70f865ae",
    "m/t/random-0.5/draw1/ticket": "fedb08d2f21aa869",
    "m/t/winning-0.5/seed0": "bc29ef7540ab47f4",
    "m/t/winning-0.5/seed1": "664112a8c7184407",
    "m/t/random-0.5/seed0": "5b3047406e4624d8",
    "m/t/random-0.5/seed1": "7330fce271228564",
    "m/t/reinit-0.5/seed0": "0caa425456f2038e",
    "m/t/reinit-0.5/seed1": "f3907e3978fab765",
}
