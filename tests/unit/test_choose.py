"""Which step of a study `score`, `prune` and `train` mean."""

import dataclasses

import pytest
from _synthetic_run import study

from bigtickets.errors import InputError
from bigtickets.running.single import Wanted, choose
from bigtickets.study.spec import StudySpec

ONE = study(models=("L3",), tasks=("movie",), ratios=(0.0, 0.4), kinds=("winning", "reinit"))
ONLY = dataclasses.replace(ONE, tickets=dataclasses.replace(ONE.tickets, kinds=("reinit",)))


@pytest.mark.parametrize("spec", [ONE, ONLY], ids=["both kinds", "reinit alone"])
def test_a_reinitialised_ticket_is_the_winning_one(spec: StudySpec) -> None:
    with pytest.raises(InputError, match=r"^--kind reinit: its ticket is the winning one.*ng$"):
        choose(spec, "ticket", Wanted(kind="reinit", ratio=0.4))
    ticket = choose(spec, "ticket", Wanted(kind="winning", ratio=0.4))
    assert (ticket.step, ticket.kind) == ("ticket", "winning")
    trial = choose(spec, "trial", Wanted(kind="reinit", ratio=0.4))
    assert trial.ticket == ticket.id


def test_kinds_that_the_study_does_not_have() -> None:
    with pytest.raises(InputError, match="--kind winning: not in the study; known: reinit"):
        choose(ONLY, "trial", Wanted(kind="winning", ratio=0.4))
    with pytest.raises(InputError, match="--kind losing: not in the study"):
        choose(ONE, "ticket", Wanted(kind="losing", ratio=0.4))
