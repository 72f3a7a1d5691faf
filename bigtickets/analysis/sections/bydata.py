"""The section about the amount of data."""

import pandas as pd

from bigtickets.analysis.results import DataLaw, Results
from bigtickets.analysis.sections.amounts import data_pictures
from bigtickets.analysis.sections.bysize import LAW_NAMES, law_cells
from bigtickets.analysis.writing.blocks import Block, Gallery, Items, Section, Table, Text
from bigtickets.analysis.writing.words import cell_name, count

NOTE = (
    "Change per tenfold training examples, models as random effect; p: the shares of the data "
    "permuted, the same way for every model, with the least value that so few shares can give. Two "
    "shares are a difference, more data minus less, and not a trend. All models and seeds train on "
    "the same examples of a share: what is peculiar to these is in all of them."
)


def data_section(results: Results, table: pd.DataFrame) -> Section:
    """Gain, collapse and sharpness against the number of training examples; for several shares."""
    laws = results.data_laws
    rows = [[f"{LAW_NAMES[one.law.what]}, {one.task}", *law_cells(one.law)] for one in laws]
    headers = ["What", "Shares", "Models", "Kind", "Change", "95 % interval"]
    headers += ["Over models and seeds", "p", "Least p", "Found"]
    left_out = [
        f"{LAW_NAMES[one.law.what]}, {cell_name(model, one.task, float(share))}: {why}."
        for one in laws
        for share, model, why in one.law.left_out
    ]
    blocks: list[Block] = [
        Items([_verdict(one) for one in laws if one.law.what == "sharpness"]),
        Text(f"{NOTE} {_steps(table)}", small=True),
        Gallery(data_pictures(results)),
        Table("Amount of data", "lrrlrllrrl", headers, rows),
    ]
    if left_out:
        blocks += [Text("Left out, and not at random:"), Items(left_out)]
    return Section("data", "Amount of data", blocks)


def _verdict(one: DataLaw) -> str:
    """Does less data sharpen the transition, in one sentence."""
    law, known = one.law, one.law.slope.value
    if known is None:
        why = law.reason or law.slope.reason or "no value"
        return f"{one.task}: whether less data sharpens the fall is not to be had: {why}."
    shares = f"{count(len(law.settings), 'share')} of the data, {count(len(law.blocks), 'model')}"
    if not law.found:
        return f"{one.task}: that less data sharpens the fall is not shown ({shares})."
    less, more = ("less", "more") if known < 0 else ("more", "less")
    return f"{one.task}: {less} data goes with a sharper fall than {more} ({shares})."


def _steps(table: pd.DataFrame) -> str:
    """Whether less data was less training, too."""
    steps = table.groupby(["model", "task"])["steps"]
    if (steps.nunique() > 1).any():
        return "Less data was less training here, too: the number of steps differs between shares."
    return "All trainings of a model on a task have the same number of steps, whatever the share."
