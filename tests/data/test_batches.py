"""Batches of one and of several processes."""

from collections import Counter

import numpy as np
import pytest

from psarm.data.batches import GlobalBatches
from psarm.geometry import resized_size


def batches(length, size, accumulate=1, process=0, processes=1, *, epoch=0, seed=4, aspects=None):
    sampler = GlobalBatches(length, seed, size, accumulate, process, processes, aspects)
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(sampler) == len(found) and all(len(batch) == size for batch in found)
    assert all(key[0] == epoch for batch in found for key in batch)
    return [[index for _, index in batch] for batch in found]


def aspects_of(kind, length, rng):
    if kind == "any":
        return None
    if kind == "two sizes":
        return rng.choice([1920 / 1080, 720 / 576], length, p=[0.87, 0.13])
    return rng.uniform(0.5, 2.4, length)


@pytest.mark.parametrize("kind", ["any", "two sizes", "random sizes"])
@pytest.mark.parametrize("length", [0, 3, 4, 11, 12, 97, 1000])
@pytest.mark.parametrize("size", [1, 4])
def test_an_epoch_has_every_step_it_can_and_no_frame_twice(kind, length, size):
    aspects = aspects_of(kind, length, np.random.default_rng(0))
    for epoch in range(3):
        found = batches(length, size, epoch=epoch, aspects=aspects)
        assert len(found) == length // size
        frames = [index for batch in found for index in batch]
        assert len(frames) == len(set(frames)) and set(frames) <= set(range(length))


@pytest.mark.parametrize("kind", ["any", "random sizes"])
@pytest.mark.parametrize(("size", "accumulate", "processes"), [(1, 1, 12), (12, 1, 1), (3, 4, 1), (2, 3, 2), (3, 2, 2)])
def test_a_step_is_the_same_however_it_is_shared_out(kind, size, accumulate, processes):
    aspects = aspects_of(kind, 100, np.random.default_rng(0))
    for epoch in range(2):
        parts = [batches(100, size, accumulate, p, processes, epoch=epoch, aspects=aspects) for p in range(processes)]
        whole = batches(100, 12, epoch=epoch, aspects=aspects)
        for step, frames in enumerate(whole):
            for a in range(accumulate):
                for p in range(processes):
                    first = (a * processes + p) * size
                    assert parts[p][step * accumulate + a] == frames[first : first + size]


def test_the_order_depends_on_seed_and_epoch():
    aspects = aspects_of("random sizes", 500, np.random.default_rng(0))
    first = batches(500, 4, aspects=aspects)
    assert first == batches(500, 4, aspects=aspects)
    for other in (batches(500, 4, epoch=1, aspects=aspects), batches(500, 4, seed=5, aspects=aspects)):
        together = {frozenset(batch) for batch in first} & {frozenset(batch) for batch in other}
        assert len(together) < 30  # of 125: other company, not only another order
    # A step's shape says nothing about the next one's.
    means = np.array([aspects[batch].mean() for batch in first])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3


def test_every_frame_is_left_out_as_often_as_any_other():
    aspects = np.array([1.0] * 9 + [2.0] * 2)
    seen = Counter(
        index for epoch in range(1500) for batch in batches(11, 4, epoch=epoch, aspects=aspects) for index in batch
    )
    assert all(abs(count / 1500 - 8 / 11) < 0.05 for count in seen.values()) and len(seen) == 11


@pytest.mark.parametrize(("kind", "length"), [("two sizes", 5704), ("random sizes", 11206)])
@pytest.mark.parametrize(("size", "processes"), [(3, 1), (4, 8)])
def test_little_is_padded(kind, length, size, processes):
    aspects = aspects_of(kind, length, np.random.default_rng(0))
    sizes = np.array([resized_size(1000, round(1000 * aspect), 900, 1500) for aspect in aspects])
    padded, grouped = (
        padding(GlobalBatches(length, 0, size, processes=processes, aspects=by), sizes) for by in (None, aspects)
    )
    alone = padding(GlobalBatches(length, 0, 1), sizes)
    assert alone < grouped < alone + 0.02 and grouped < padded - 0.03


def padding(sampler, sizes):
    """Share of pixels that are padding, all processes together, each side rounded up to a multiple of 32."""
    steps = sampler.frames_of_steps()
    largest = -(-sizes[steps].max(axis=1) // 32) * 32
    return (largest.prod(axis=1) * steps.shape[1]).sum() / sizes[steps].prod(axis=2).sum() - 1
