"""Which jobs a study needs: prefetch -> scoring array -> trials array -> finish.

One chain per shape (processes per trial): an array of slots for what trials wait for (dense runs
that are scored, importance passes, tickets), then an array for the trials. A slot takes whatever
step can be run, so the arrays' sizes are a matter of speed alone; every job follows the one before
it however that ended (`afterany`), because what it finds in the run folder decides what it does.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from bigtickets.errors import InputError
from bigtickets.running.slurm.cluster import Cluster
from bigtickets.running.slurm.limits import Limits
from bigtickets.study.steps import Step

Stage = Literal["prefetch", "scoring", "trials", "finish"]
SLOTS: tuple[Stage, ...] = ("scoring", "trials")
LIGHT_SECONDS = 2 * 3600
"""Time limit of prefetch and finish, unless the cluster's is shorter."""


@dataclass(frozen=True)
class Job:
    """One job or array of a chain, before it is submitted."""

    stage: Stage
    processes: int = 1
    """Ranks of one trial."""
    elements: int = 1
    """Slots; more than one, or any number of `scoring` and `trials`, is an array."""
    nodes: int = 1
    groups: int = 1
    """Trials side by side in one slot."""

    @property
    def name(self) -> str:
        """For people: `trials-8x`."""
        return f"{self.stage}-{self.processes}x" if self.stage in SLOTS else self.stage

    @property
    def per_node(self) -> int:
        """Ranks on each node of one element."""
        return math.ceil(self.processes * self.groups / self.nodes)

    def gpus(self, cluster: Cluster) -> int:
        """GPUs of one element."""
        if self.stage not in SLOTS or not cluster.gpus_per_node:
            return 0
        each = cluster.gpus_per_node if cluster.whole_nodes else self.per_node
        return self.nodes * min(each, cluster.gpus_per_node)


def chain(
    wanted: Iterable[tuple[Step, int, bool]],
    hours: Mapping[int, float],
    cluster: Cluster,
    limits: Limits,
    queued: int = 0,
) -> list[Job]:
    """The jobs for `wanted` steps, in the order of their submission.

    Each step comes with its processes and whether trials wait for it. `hours`: what is left to
    compute per number of processes, one group working. `queued`: jobs of ours that are there.
    """
    cells: Counter[int] = Counter()
    trials: Counter[int] = Counter()
    data = False
    for step, processes, early in wanted:
        data = data or step.step == "data"
        if early and step.step != "data":
            cells[processes] += step.step == "scores"
        elif step.step == "trial":
            trials[processes] += 1
    arrays = []
    for processes in sorted(cells.keys() | trials.keys()):
        if processes in cells:
            arrays.append(_array("scoring", processes, max(1, cells[processes]), 0, cluster))
        if trials[processes]:
            hours_left = hours.get(processes, 0)
            arrays.append(_array("trials", processes, trials[processes], hours_left, cluster))
    jobs = _bounded(arrays, limits, queued)
    prefetch = [Job("prefetch")] if data and cluster.prefetch == "job" else []
    return [*prefetch, *jobs, *([Job("finish")] if jobs else [])]


def _array(stage: Stage, processes: int, steps: int, hours: float, cluster: Cluster) -> Job:
    """As many slots as work at once, or as the work takes if it is more than their time."""
    nodes = math.ceil(processes / cluster.per_node)
    if processes % nodes:
        raise InputError(
            f"execution.processes_per_trial: {processes} cannot be spread evenly over "
            f"{nodes} nodes of {cluster.per_node}; take a multiple of {nodes}"
        )
    groups = max(1, cluster.per_node // processes) if cluster.whole_nodes else 1
    slot_hours = (cluster.seconds - cluster.save_seconds) / 3600
    elements = max(cluster.concurrency, math.ceil(hours / groups / slot_hours))
    return Job(stage, processes, min(math.ceil(steps / groups), elements), nodes, groups)


def _bounded(arrays: list[Job], limits: Limits, queued: int) -> list[Job]:
    """Fewer slots where SLURM does not take so many: each of them then works on more steps."""
    arrays = [replace(job, elements=min(job.elements, limits.array)) for job in arrays]
    if limits.submitted is None:
        return arrays
    # Prefetch and finish count too.
    room = max(limits.submitted - queued - 2, len(arrays))
    wanted = sum(job.elements for job in arrays)
    share = min(1.0, room / max(wanted, 1))
    return [replace(job, elements=max(1, math.floor(job.elements * share))) for job in arrays]
