"""Which examples are in which batch: the same on any number of ranks, each exactly once."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtickets.training.batches import (
    MicroBatch,
    collate,
    evaluation_batches,
    micro_batches,
    steps_per_epoch,
    training_batches,
)
from bigtickets.training.splits import Split

WORLDS = (1, 2, 3, 4)
FAST = settings(max_examples=60, deadline=None)


def random_lengths(count: int, seed: int = 0) -> np.ndarray:
    """Tokens of each of `count` examples."""
    return np.random.default_rng(seed).integers(1, 60, count)


def counted(batches: list[list[MicroBatch]]) -> list[int]:
    """Indices of all ranks' real examples, sorted."""
    return sorted(
        int(i)
        for indices, weights in itertools.chain.from_iterable(batches)
        for i in indices[weights > 0]
    )


def small_split(lengths: list[int], types: bool = True) -> Split:
    """Token ids count up from 1, so that every token is different."""
    total = sum(lengths)
    return Split(
        name="train",
        input_ids=torch.arange(1, total + 1, dtype=torch.int32),
        offsets=torch.tensor([0, *itertools.accumulate(lengths)]),
        token_type_ids=torch.ones(total, dtype=torch.int8) if types else None,
        labels=torch.arange(len(lengths)) % 2,
        pad_id=0,
        outputs=2,
    )


@FAST
@given(st.integers(1, 700), st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_has_every_example_once(count: int, batch_size: int, seed: int) -> None:
    steps = steps_per_epoch(count, batch_size)
    batches = training_batches(random_lengths(count), batch_size, 2 * steps, seed)
    assert batches.steps_per_epoch == steps
    drawn = list(batches)
    assert len(drawn) == len(batches) == 2 * steps
    for epoch in (drawn[:steps], drawn[steps:]):
        np.testing.assert_array_equal(np.sort(np.concatenate(epoch)), np.arange(count))
        assert all(len(batch) == batch_size for batch in epoch[:-1])


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    lengths = random_lengths(500)
    straight = list(training_batches(lengths, 16, 100, seed=3))
    for step in (99, 0, 57, 31, 32):  # in any order, with a fresh object: as after a resume
        fresh = training_batches(lengths, 16, 100, seed=3)
        np.testing.assert_array_equal(fresh.batch_at(step), straight[step])
    other = training_batches(lengths, 16, 100, seed=4)
    assert any(set(a) != set(b) for a, b in zip(straight, other, strict=True))
    assert [set(b) for b in straight[:31]] != [set(b) for b in straight[32:63]], "epochs differ"


def test_more_steps_change_no_batch() -> None:
    lengths = random_lengths(100)
    few, many = (training_batches(lengths, 8, steps, 0) for steps in (5, 50))
    for step in range(5):
        np.testing.assert_array_equal(few.batch_at(step), many.batch_at(step))
    with pytest.raises(IndexError):
        few.batch_at(5)


def test_golden_batches() -> None:
    """Records name the seed alone: its batches must not change with numpy or with this code."""
    batches = training_batches(np.arange(10) % 4 + 1, 4, 6, seed=7)
    first = [[6, 2, 3, 7], [4, 0, 8, 9], [5, 1]]
    second = [[9, 2, 3, 7], [8, 4, 1, 5], [0, 6]]
    assert [batch.tolist() for batch in batches] == first + second


def test_batches_of_a_subset() -> None:
    chosen = np.array([3, 5, 8, 13, 21])
    batches = training_batches(random_lengths(30), 2, 3, 0, examples=chosen)
    assert sorted(np.concatenate(list(batches)).tolist()) == chosen.tolist()
    assert batches.steps_per_epoch == 3
    assert batches.epoch_of(3) == 1.0


def test_no_examples_is_an_error() -> None:
    with pytest.raises(ValueError, match="no examples"):
        training_batches(np.zeros(0, np.int64), 2, 3, 0)


def test_little_padding() -> None:
    """Random batches of 32 out of lengths from 1 to 59 would be about half padding."""
    lengths = random_lengths(4000)
    drawn = list(training_batches(lengths, 32, 125, 0))
    padded = sum(len(batch) * lengths[batch].max() for batch in drawn)
    assert lengths.sum() / padded > 0.95


def test_short_batches_do_not_come_first() -> None:
    lengths = random_lengths(4000)
    trends = []
    for seed in range(30):
        mean = [lengths[batch].mean() for batch in training_batches(lengths, 32, 125, seed)]
        trends.append(np.corrcoef(mean, np.arange(125))[0, 1])
    assert abs(np.mean(trends)) < 4 / np.sqrt(30 * 125)


@FAST
@given(st.integers(1, 90), st.integers(1, 20))
def test_micro_batches_over_ranks(count: int, micro_batch: int) -> None:
    indices = np.random.default_rng(count).permutation(200)[:count]
    for world in WORLDS:
        ranks = [micro_batches(indices, rank, world, micro_batch) for rank in range(world)]
        assert len({len(pieces) for pieces in ranks}) == 1, "the same number on every rank"
        assert counted(ranks) == sorted(indices.tolist()), "every example once"
        for own, weights in itertools.chain.from_iterable(ranks):
            assert 1 <= len(own) == len(weights) <= micro_batch
            assert weights.dtype == np.float32
            assert set(own) <= set(indices)


def test_ranks_without_examples_get_fillers() -> None:
    pieces = [micro_batches(np.array([7, 9]), rank, 4, 1) for rank in range(4)]
    assert [len(p) for p in pieces] == [1, 1, 1, 1]
    assert [float(p[0][1].sum()) for p in pieces] == [1, 1, 0, 0]
    assert pieces[3][0][0].tolist() == [7], "the shortest example of the batch"


@FAST
@given(st.integers(1, 200), st.integers(1, 300), st.booleans())
def test_evaluation_batches_over_ranks(count: int, size: int, by_tokens: bool) -> None:
    lengths = random_lengths(count, seed=count)
    for world in WORLDS:
        ranks = [
            evaluation_batches(
                lengths,
                rank,
                world,
                tokens=size if by_tokens else None,
                micro_batch=None if by_tokens else size,
            )
            for rank in range(world)
        ]
        assert len({len(batches) for batches in ranks}) == 1
        assert counted(ranks) == list(range(count))
        for own, _ in itertools.chain.from_iterable(ranks):
            padded = len(own) * lengths[own].max()
            assert len(own) == 1 or (padded if by_tokens else len(own)) <= size


def test_evaluation_batches_of_a_subset() -> None:
    chosen = np.array([1, 4, 9])
    batches = evaluation_batches(random_lengths(10), 0, 1, micro_batch=2, examples=chosen)
    assert counted([batches]) == [1, 4, 9]
    with pytest.raises(TypeError):
        evaluation_batches(random_lengths(10), 0, 1)


def test_collate_pads_to_the_longest() -> None:
    split = small_split([2, 4, 1, 3])
    batch = collate(split, np.array([3, 0]), np.array([1.0, 0.0]))
    assert batch["input_ids"].tolist() == [[8, 9, 10], [1, 2, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["weight"].tolist() == [1.0, 0.0]
    assert batch["example"].tolist() == [3, 0]
    kinds = {"input_ids", "attention_mask", "token_type_ids", "labels", "example"}
    assert all(batch[key].dtype == torch.int64 for key in kinds)
    assert batch["weight"].dtype == torch.float32


def test_collate_without_token_types_and_weights() -> None:
    split = small_split([1, 2], types=False).to("cpu")
    batch = collate(split, np.array([1]), device="cpu")
    assert "token_type_ids" not in batch
    assert batch["weight"].tolist() == [1.0]


@FAST
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.randoms())
def test_collate_is_the_obvious_loop(lengths: list[int], random: object) -> None:
    split = small_split(lengths)
    indices = np.array(random.sample(range(len(lengths)), random.randint(1, len(lengths))))  # type: ignore[attr-defined]
    batch = collate(split, indices)
    for row, i in enumerate(indices):
        start, length = sum(lengths[:i]), lengths[i]
        assert batch["input_ids"][row, :length].tolist() == [*range(start + 1, start + length + 1)]
        assert not batch["input_ids"][row, length:].any()
        assert int(batch["attention_mask"][row].sum()) == length
    assert batch["input_ids"].shape[1] == max(lengths[i] for i in indices)
