"""Weights kept in bf16 give the scores that autocast over float32 weights gives, bit for bit."""

import copy

import torch
from tiny_models import batch_for, examples, tiny
from torch.nn.functional import cross_entropy

from bigtickets.tickets.importance import ImportancePass
from bigtickets.training.engine import narrow


def test_narrow_weights_change_no_score() -> None:
    wide = tiny("bert", dtype=torch.float32)
    slim = copy.deepcopy(wide)
    narrow(slim)
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert slim.get_parameter(query).dtype == torch.bfloat16
    assert slim.bert.embeddings.LayerNorm.weight.dtype == torch.float32
    inputs, labels = batch_for(wide, examples(6))
    means = []
    for model in (wide, slim):
        with ImportancePass(model) as scoring:
            with torch.autocast("cpu", torch.bfloat16):
                logits_BC = model(**inputs).logits
            loss_B = cross_entropy(logits_BC.float(), labels, reduction="none")
            scoring.add(loss_B, torch.ones(6))
        means.append(scoring.scores().mean())
    for unit, mean_LN in means[0].items():
        assert (means[1][unit] == mean_LN).all()
        assert mean_LN.any()
