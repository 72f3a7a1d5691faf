"""Dropout masks that depend on where an element stands and on nothing else."""

import torch
from torch import nn

from bigtickets.training.dropout import KeyedDropout, MaskKey, install_dropout


def mask(
    example_B: list[int], length: int, width: int = 64, step: int = 3, seed: int = 1, i: int = 0
):
    key = MaskKey(seed)
    key.set(step, torch.tensor(example_B))
    module = KeyedDropout(0.25, i, key).train()
    return module(torch.ones(len(example_B), length, width)) > 0


def test_rate_and_scale() -> None:
    key = MaskKey(0)
    key.set(0, torch.arange(64))
    dropped = KeyedDropout(0.1, 0, key).train()(torch.ones(64, 32, 128))
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.9).item()}
    # 262,144 coins: one standard deviation is 0.0006.
    assert abs((dropped == 0).float().mean().item() - 0.1) < 0.003


def test_batch_place_and_padding_do_not_matter() -> None:
    together = mask([5, 9, 2], 12)
    alone = mask([9], 7)
    assert torch.equal(together[1, :7], alone[0])


def test_step_seed_module_and_example_matter() -> None:
    base = mask([5], 8)
    others = [mask([5], 8, step=4), mask([5], 8, seed=2), mask([5], 8, i=1), mask([6], 8)]
    for other in others:
        agreement = (base == other).float().mean().item()
        assert 0.5 < agreement < 0.75  # 0.75^2 + 0.25^2 = 0.625 if independent


def test_rows_and_columns_are_uncorrelated() -> None:
    coins = mask(list(range(200)), 4, width=100).reshape(800, 100).double()
    for matrix in (coins, coins.T):
        correlation = torch.corrcoef(matrix) - torch.eye(len(matrix), dtype=torch.double)
        expected = matrix.shape[1] ** -0.5
        assert abs(correlation.std().item() / expected - 1) < 0.15
        assert correlation.abs().max().item() < 6 * expected


def test_wide_hidden_sizes_have_no_repeating_columns() -> None:
    coins = mask(list(range(64)), 2, width=4096).reshape(128, 4096)
    assert len({tuple(column) for column in coins.T.tolist()}) == 4096


def test_two_dimensional_inputs_and_evaluation() -> None:
    key = MaskKey(0)
    key.set(0, torch.arange(8))
    module = KeyedDropout(0.5, 0, key)
    x = torch.ones(8, 16)
    assert module.train()(x).shape == (8, 16)
    assert torch.equal(module.eval()(x), x)


def test_install_replaces_every_dropout() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.1)))
    key = MaskKey(0)
    install_dropout(network, 0.2, key)
    found = [m for m in network.modules() if isinstance(m, KeyedDropout)]
    assert [m.rate for m in found] == [0.2, 0.2]
    assert len({m.module_index for m in found}) == 2
    assert not any(isinstance(m, nn.Dropout) for m in network.modules())
