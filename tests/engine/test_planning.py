"""Plans of optimizer steps are even, complete and the same on every rank."""

import random

import pytest

from dpo.engine.planning import (
    MicroBatch,
    deal,
    epoch_order,
    num_micro_batches_within,
    plan_all,
    plan_micro_batches,
    steps_of,
)


def lengths(num: int, seed: int = 0) -> list[int]:
    generator = random.Random(seed)
    return [generator.randint(50, 1500) for _ in range(num)]


def test_the_longest_item_is_dealt_first_to_the_emptiest_bin():
    assert deal([5, 3, 2], 2) == [[0], [1, 2]]
    assert deal([1, 2, 3, 4, 5, 6], 3) == [[5, 0], [4, 1], [3, 2]]
    assert deal([4], 3) == [[0], [], []]


@pytest.mark.parametrize(("world_size", "num_micro_batches"), [(1, 1), (2, 1), (1, 3), (4, 2), (8, 8)])
def test_every_pair_of_a_step_is_in_one_micro_batch(world_size, num_micro_batches):
    tokens = lengths(200)
    pairs = epoch_order(200, seed=3, epoch=0)[:64]
    plan = plan_micro_batches(pairs, tokens, world_size=world_size, num_micro_batches=num_micro_batches)
    assert [len(row) for row in plan] == [world_size] * num_micro_batches
    assert sorted(pair for row in plan for batch in row for pair in batch.pairs) == sorted(pairs)
    assert not any(batch.is_filler for row in plan for batch in row)


def test_ranks_get_even_token_counts():
    tokens = lengths(4096)
    plan = plan_micro_batches(range(4096), tokens, world_size=512, num_micro_batches=1)
    loads = [sum(tokens[pair] for pair in batch.pairs) for batch in plan[0]]
    assert sum(loads) / len(loads) / max(loads) > 0.98


def test_ranks_take_turns_with_the_larger_micro_batches():
    plan = plan_micro_batches(range(4), [8, 6, 4, 2], world_size=2, num_micro_batches=2)
    assert plan == [[MicroBatch((0,)), MicroBatch((1,))], [MicroBatch((3,)), MicroBatch((2,))]]


def test_fewer_pairs_than_places_leave_fillers_that_do_not_count():
    plan = plan_micro_batches([5, 1, 3], lengths(8), world_size=4, num_micro_batches=2)
    batches = [batch for row in plan for batch in row]
    assert len(batches) == 8
    assert sorted(pair for batch in batches if not batch.is_filler for pair in batch.pairs) == [1, 3, 5]
    assert all(len(batch.pairs) == 1 for batch in batches if batch.is_filler)


def test_an_epoch_takes_every_pair_once_and_its_last_step_the_remaining_pairs():
    steps = steps_of(epoch_order(10, seed=0, epoch=0), global_batch_size=4)
    assert [len(step) for step in steps] == [4, 4, 2]
    assert sorted(pair for step in steps for pair in step) == list(range(10))
    assert [len(step) for step in steps_of(range(10), global_batch_size=4, drop_last=True)] == [4, 4]
    assert steps_of(range(3), global_batch_size=4, drop_last=True) == [[0, 1, 2]], "the only step is not dropped"


def test_the_order_follows_seed_and_epoch_alone():
    assert epoch_order(50, seed=1, epoch=2) == epoch_order(50, seed=1, epoch=2)
    orders = {tuple(epoch_order(50, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_micro_batches_split_until_each_is_within_the_bound():
    tokens = [700, 600, 500, 400]
    assert num_micro_batches_within(tokens, world_size=1, at_least=1, max_tokens=3000) == 1
    assert num_micro_batches_within(tokens, world_size=1, at_least=1, max_tokens=1100) == 2
    assert num_micro_batches_within(tokens, world_size=1, at_least=1, max_tokens=1000) == 3
    assert num_micro_batches_within(tokens, world_size=2, at_least=1, max_tokens=1100) == 1
    assert num_micro_batches_within(tokens, world_size=1, at_least=3, max_tokens=3000) == 3


def test_a_pass_over_all_pairs_takes_each_once_within_the_bound():
    tokens = lengths(101)
    plan = plan_all(tokens, pairs_at_once=4, world_size=2, max_tokens=3000)
    real = [batch for row in plan for batch in row if not batch.is_filler]
    assert sorted(pair for batch in real for pair in batch.pairs) == list(range(101))
    assert max(sum(tokens[pair] for pair in batch.pairs) for batch in real) <= 3000
