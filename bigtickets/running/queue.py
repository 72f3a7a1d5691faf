"""Which step a worker takes next, found without looking at every step each time.

A *look* lists the folders of results and of claims once and lines up what may be taken. Steps are
then taken from the line, each with a look at its own files only, until the line is empty or old.
"""

import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Literal

from bigtickets.running.context import Context
from bigtickets.study.claims import Claim, newest_attempts
from bigtickets.study.state import done_ids
from bigtickets.study.steps import Step

POLL_S = 0.5
MOST_PAUSE_S = 10.0
LOOK_EVERY_S = 30.0
"""A line older than that is made anew: steps were done, given back or lost meanwhile."""
REST = 20
"""Between two such looks: so many times as long as a look takes, if that is more."""
FEW = 200
"""So few steps are asked for one by one; for more, whole folders are listed."""
MANY = 50
"""Of so many steps of a kind, workers begin with different ones, to meet less often."""
AGAIN = 32
"""Claimed steps that are tried at a look while there are unclaimed ones: most are being run."""

Nothing = Literal["wait", "late", "none"]


class Queue:
    """The chosen steps that are not done, as one worker knows them."""

    def __init__(self, context: Context, chosen: Iterable[str]) -> None:
        self._context = context
        self._left = {step_id: context.steps[step_id] for step_id in chosen}
        self._place = {step_id: place for place, step_id in enumerate(self._left)}
        self._ready = {i: s for i, s in self._left.items() if not s.needs}
        self._after: dict[str, list[Step]] = defaultdict(list)
        """Steps by a step that they need."""
        for step in self._left.values():
            for need in step.needs:
                self._after[need].append(step)
        self._done: set[str] = set()
        self._failed: dict[str, int] = {}
        """Attempts that failed for good."""
        self._line: deque[Step] = deque()
        self._old_at = float("-inf")
        """When the line will be old."""
        self._unsure = self._waiting = self._late = False
        """Of the last look: not all was looked at or something changed; others run what is left;
        something did not fit."""
        self.pause_s = POLL_S
        """How long to wait after "wait": asking must not become the work."""

    def next(self, fits: Callable[[Step], bool]) -> Claim | Nothing:
        """The claim on the next step that `fits`.

        "wait" if others still work on chosen steps, "late" if none of what is left fits,
        "none" if nothing can be had.
        """
        started = time.monotonic()
        if started > self._old_at:
            self._line.clear()
        looked = False
        while self._line or not looked or self._unsure:
            if not self._line:
                # What a first look left out is looked at before saying that there is nothing.
                self._look(all_claimed=looked)
                looked = True
            while self._line:
                if claim := self._take(self._line.popleft(), fits):
                    return claim
        self.pause_s = min(MOST_PAUSE_S, max(POLL_S, 10 * (time.monotonic() - started)))
        if self._late:
            return "late"
        return "wait" if self._waiting else "none"

    def _look(self, all_claimed: bool) -> None:
        """Line up what can be taken: claimed steps first, as they may be given back or lost."""
        started = time.monotonic()
        self._waiting = self._late = False
        self._learn(self._newly_done())
        claims = newest_attempts(self._context.folder.claims)
        fresh = [s for i, s in self._ready.items() if i not in claims]
        again = [
            self._ready[i]
            for i, attempt in claims.items()
            if i in self._ready and self._failed.get(i, 0) < attempt
        ]
        self._unsure = bool(fresh) and len(again) > AGAIN and not all_claimed
        self._line.extend(random.sample(again, AGAIN) if self._unsure else again)
        fresh.sort(key=lambda s: self._place[s.id])
        for _, group in groupby(fresh, lambda s: s.step):
            self._line.extend(_spread(list(group)))
        ended = time.monotonic()
        self._old_at = ended + max(LOOK_EVERY_S, REST * (ended - started))

    def _newly_done(self) -> set[str]:
        """What has been finished since the last look, as far as it matters here."""
        if len(self._left) > FEW:
            return done_ids(self._context.folder) - self._done
        asked = {i for s in self._left.values() for i in (s.id, *s.needs)} - self._done
        return {i for i in asked if self._context.done(i)}

    def _learn(self, done: set[str]) -> None:
        """Leave out what is done, and note what waited for it: the rest is not looked at."""
        self._done |= done
        for step_id in done:
            self._left.pop(step_id, None)
            self._ready.pop(step_id, None)
        for step in (s for need in done for s in self._after.pop(need, ())):
            if step.id in self._left and self._done.issuperset(step.needs):
                self._ready[step.id] = step

    def _take(self, step: Step, fits: Callable[[Step], bool]) -> Claim | None:
        if self._context.done(step.id):
            # Not left to the next look: a listing may be older than what was asked for by name.
            self._learn({step.id})
            self._unsure = True  # what waited for it is ready now
            return None
        if not fits(step):
            self._late = True
            return None
        claim = self._context.claims.take(step.id)
        if claim is None:
            self._note(self._context.claims.last(step.id))
        elif self._context.done(step.id):  # finished by another between the look and the claim
            self._context.claims.forget(step.id)
            self._unsure = True
            return None
        return claim

    def _note(self, other: Claim | None) -> None:
        """Remember why a step cannot be taken."""
        if other is None:
            self._unsure = True  # finished just now
        elif other.state == "failed":
            self._failed[other.step_id] = other.attempt
        else:
            self._waiting = True


def _spread(steps: list[Step]) -> list[Step]:
    """The same steps, from a random one on if they are many."""
    first = random.randrange(len(steps)) if len(steps) >= MANY else 0
    return steps[first:] + steps[:first]
