import copy
import json

import numpy as np
import pytest
from tiny_models import FAMILIES, tiny

from bigtickets.errors import DamagedError, InputError
from bigtickets.study.spec import TicketsSpec
from bigtickets.tickets.families import forward_flops, model_parameters
from bigtickets.tickets.surgery import remove_units
from bigtickets.tickets.ticket import Ticket, check_kept, cut_ticket
from bigtickets.tickets.units import model_shapes


def cut(family="bert", kind="winning", ratio=0.4, seed=3, unit="neurons", **spec):
    """A ticket for a tiny model, and the model."""
    model = tiny(family)
    shapes, random = model_shapes(model), np.random.default_rng(0)
    scores = {
        "heads": random.random((3, 4)),
        unit: random.random((3, 20 if unit != "blocks" else 1)),
    }
    ticket = cut_ticket(
        scores,
        shapes,
        TicketsSpec(units=tuple(scores), **spec),
        kind,
        ratio,
        seed,
        parameters=model_parameters(shapes, labels=3),
        length=11,
        provenance={"model": family, "scores": "abc"},
    )
    return ticket, model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("unit", "budget"), [("neurons", "joint"), ("blocks", "per_type")])
def test_fractions_are_those_of_the_pruned_model(family, unit, budget):
    ticket, model = cut(family, unit=unit, budget=budget, min_heads=0)
    dense, encoder = model.num_parameters(), _prunable(model, unit)
    shapes = model_shapes(model)
    remove_units(model, ticket.kept)
    gone = dense - model.num_parameters()
    assert gone > 0
    assert ticket.fractions["model"] == pytest.approx(gone / dense, abs=1e-15)
    # What all heads of a layer share goes with the last of them and is no unit's.
    emptied = (~ticket.kept["heads"].any(1)).sum() * shapes.last_head_weights
    units = (gone - emptied) / (encoder - 3 * shapes.last_head_weights)
    assert ticket.fractions["encoder"] == pytest.approx(units, abs=1e-15)
    kept_flops = forward_flops(shapes, 11, ticket.kept) / forward_flops(shapes, 11)
    assert ticket.fractions["flops"] == pytest.approx(1 - kept_flops, abs=1e-15)
    if budget == "joint":
        assert ticket.fractions["encoder"] <= 0.4


def _prunable(model, unit):
    """Parameters that go with all units."""
    empty = copy.deepcopy(model)
    sizes = {"heads": 4, "neurons": 20, "blocks": 1}
    remove_units(empty, {each: np.zeros((3, sizes[each]), bool) for each in ("heads", unit)})
    return model.num_parameters() - empty.num_parameters()


def test_counts_are_exact():
    ticket, _ = cut(ratio=0.9)
    assert ticket.total == {"heads": 12, "neurons": 60}
    assert ticket.asked == {"heads": 11, "neurons": 54}
    assert ticket.removed == {"heads": 9, "neurons": 54}  # one head stays in each layer
    assert {unit: int(mask.sum()) for unit, mask in ticket.kept.items()} == {
        "heads": 3,
        "neurons": 6,
    }


def test_ratio_0_keeps_all():
    ticket, _ = cut(ratio=0.0)
    assert ticket.removed == {"heads": 0, "neurons": 0}
    assert ticket.fractions == {"encoder": 0, "model": 0, "flops": 0}


def test_seed_is_that_of_the_random_kinds():
    assert cut(kind="random")[0].seed == cut(kind="random_layerwise")[0].seed == 3
    assert cut(kind="winning")[0].seed is None


def test_hash_is_of_the_structure_alone():
    winning, reinit = cut()[0], cut(kind="reinit")[0]
    assert winning.hash == reinit.hash != cut(kind="losing")[0].hash
    assert winning.hash == "90b0d2578f64a2cc1941703324c892d8836b7fa2653d24bed95cdef10964adf5"


def test_json_round_trip():
    ticket, _ = cut(kind="random")
    text = json.dumps({**ticket.to_json(), "id": "added by others"})
    again = Ticket.from_json(json.loads(text))
    assert again.to_json() == ticket.to_json()
    assert again.hash == ticket.hash
    for unit, mask in ticket.kept.items():
        np.testing.assert_array_equal(again.kept[unit], mask)


def _damaged(value):
    """Every way in which a ticket's file can be wrong that this test knows."""
    kept = value["kept"]["neurons"]
    yield {**value, "hash": "0" * 64}
    yield {**value, "total": {**value["total"], "neurons": 63}}
    yield {**value, "removed": {**value["removed"], "neurons": 0}}
    for layer in ([], [*kept[0], 20], [-1], [0, 0], kept[0][::-1], ["a"], None, [0.5]):
        yield {**value, "kept": {**value["kept"], "neurons": [layer, *kept[1:]]}}
    yield {**value, "kept": {**value["kept"], "neurons": []}}
    yield {**value, "kept": None}
    for key in value:
        yield {name: item for name, item in value.items() if name != key}


def test_damage_is_found():
    value = cut()[0].to_json()
    for damaged in _damaged(value):
        with pytest.raises(DamagedError, match=r"t\.json: damaged"):
            Ticket.from_json(damaged, "t.json")


def test_a_ticket_of_another_model_is_refused():
    ticket, _ = cut()
    other = tiny(num_hidden_layers=2)
    with pytest.raises(InputError, match=r"heads 3 x 4 .*2 x 4"):
        remove_units(other, ticket.kept)


@pytest.mark.parametrize("units", [[], ["neurons", "blocks"], ["wings"]])
def test_a_ticket_of_impossible_units_is_refused(units):
    shapes = model_shapes(tiny())
    with pytest.raises(InputError, match="heads, and neurons or blocks"):
        check_kept({unit: np.ones((3, 1), bool) for unit in units}, shapes)
