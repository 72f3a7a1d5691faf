"""One ticket: from scores, a rule and a ratio to the units that stay. Pure CPU."""

from bigtickets.files import write_json
from bigtickets.running.context import Context
from bigtickets.running.steps.records import step_spec
from bigtickets.study.claims import Claim
from bigtickets.study.provenance import commit, versions
from bigtickets.study.steps import Step
from bigtickets.tickets.families import model_parameters, shapes_of
from bigtickets.tickets.scores import load_scores
from bigtickets.tickets.ticket import cut_ticket
from bigtickets.training.models import read_config
from bigtickets.training.splits import load_record


def run_ticket(context: Context, step: Step, claim: Claim) -> bool:
    """Cut one ticket and write it."""
    if not context.ranks.first:
        return True
    model, study = context.model(step), context.study
    assert step.kind != "dense"
    scores_step = context.steps[step.needs[0]]
    scores = load_scores(context.folder.score(scores_step.id) / "scores.safetensors")
    outputs = load_record(context.data(scores_step))["outputs"]
    shapes = shapes_of(read_config(model))
    ticket = cut_ticket(
        scores.normalized(study.importance.normalize),
        shapes,
        study.tickets,
        step.kind,
        step.ratio,
        step.seed or 0,  # only random kinds read it, and they have one
        parameters=model_parameters(shapes, outputs),
        length=model.training.max_length,
        provenance={"scores": scores_step.id, "scores_hash": scores.digest},
    )
    facts = {
        "id": step.id,
        "label": step.label,
        "spec": step_spec(context, step),
        "versions": versions(),
        "commit": commit(),
    }
    write_json(context.folder.ticket(step.id), {**ticket.to_json(), **facts})
    return True
