"""Holding frames out of training, on data sets of the shape of PRW, converted video and CUHK-SYSU."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from psarm.data.types import Frame, Located, PersonSearchDataset, Query
from psarm.data.validation import _draw, hold_out
from psarm.errors import DataError
from psarm.evaluation.protocol import SearchProtocol


def frame(index, identities, camera=1):
    rng = np.random.default_rng(index)
    corners = rng.uniform(0, 50, (len(identities), 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 50, (len(identities), 2))], axis=1).astype(np.float32)
    return Frame(f"f{index}.jpg", Path(f"f{index}.jpg"), camera, boxes, np.array(identities, np.int64))


def dataset_of(train, **fields):
    gallery = [frame(9000, [901]), frame(9001, [901])]
    query = Query("f9000.jpg", Path("f9000.jpg"), 1, gallery[0].boxes[0], 901)
    return PersonSearchDataset("prw", Path("root"), train, gallery, [query], **fields)


def prw_like(rng):
    """Six cameras; people walk past one or two of them in runs of some frames, some together."""
    shown = [[] for _ in range(1000)]
    for identity in range(1, 121):
        for _ in range(rng.integers(1, 4)):
            start = rng.integers(0, 990)
            for index in range(start, start + rng.integers(2, 10)):
                shown[index] += [identity, -1]
    return dataset_of([frame(i, people, 1 + i * 6 // 1000) for i, people in enumerate(shown)])


def visits_like(rng):
    """One camera, always the same dozen of people, three or four at a time."""
    shown = [[int(i) for i in range(40) if (index + 7 * i) % 240 < 22] for index in range(240)]
    everything = {"visits": [np.array([0, 1])]}
    return dataset_of([frame(i, p) for i, p in enumerate(shown)], galleries=everything, default_gallery="visits")


def cuhk_like(rng):
    """Scenes without cameras; everybody in two or three of them, and galleries that say where people are."""
    shown = [[-1] for _ in range(600)]
    for identity in range(300):
        for index in rng.choice(600, rng.integers(1, 4), replace=False):
            shown[index].append(identity)
    located = {"100": [Located(np.array([1]), np.zeros((1, 4), np.float32))]}
    return dataset_of(
        [frame(i, people, 0) for i, people in enumerate(shown)],
        galleries={"100": [np.array([0, 1])]},
        located=located,
        default_gallery="100",
        cbgm=(10, 3),
    )


def people(frames):
    return {int(i) for frame in frames for i in frame.identities if i >= 0}


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("make", [prw_like, visits_like, cuhk_like])
def test_nobody_searched_for_is_trained_on(make, share):
    dataset = make(np.random.default_rng(3))
    train, validation = hold_out(dataset, share, seed=1)
    names = [[frame.name for frame in part] for part in (train.train, validation.gallery)]
    assert sorted(names[0] + names[1]) == sorted(frame.name for frame in dataset.train)  # once, in one part
    assert abs(len(names[1]) / len(dataset.train) - share) < 0.02
    searched = [query.identity for query in validation.queries]
    assert len(searched) == len(set(searched)) >= (1 if make is visits_like else 10)
    assert people(train.train).isdisjoint(searched)
    # Each held-out frame is held out for somebody, and everybody who is nowhere else and can be found is searched for.
    assert all(set(frame.identities) & set(searched) for frame in validation.gallery)
    counts = {i: sum(i in frame.identities for frame in dataset.train) for i in people(dataset.train)}
    assert {i for i in people(dataset.train) - people(train.train) if counts[i] > 1} == set(searched)
    assert train.queries is dataset.queries and train.gallery is dataset.gallery and not validation.train
    assert validation.cbgm == dataset.cbgm and sorted(train.train_labels) == sorted(people(train.train))


@pytest.mark.parametrize("make", [prw_like, visits_like, cuhk_like])
def test_every_query_can_be_found_in_another_frame(make):
    _, validation = hold_out(make(np.random.default_rng(3)), 0.2, seed=0)
    protocol = SearchProtocol.from_dataset(validation)
    frames = {frame.name: frame for frame in validation.gallery}
    for row, query in enumerate(validation.queries):
        own = frames[query.name]
        assert any((own.boxes[own.identities == query.identity] == query.box).all(axis=1))
        searched = np.flatnonzero(protocol.searched(row))
        assert len(searched) == len(frames) - 1
        assert query.identity in people([validation.gallery[index] for index in searched])
    assert protocol.cross_camera == (make is prw_like)


def test_the_split_depends_on_the_seed_only():
    dataset = prw_like(np.random.default_rng(3))

    def split(seed):
        train, validation = hold_out(dataset, 0.2, seed)
        queries = [(query.name, query.identity, *query.box.tolist()) for query in validation.queries]
        return [frame.name for frame in train.train], [frame.name for frame in validation.gallery], queries

    assert split(5) == split(5)
    assert split(5)[1] != split(6)[1]


def test_the_nearest_share_that_people_allow():
    frames = [frame(i, [i // 4]) for i in range(20)]  # five people of four frames
    for share, expected in ((0.11, 4), (0.2, 4), (0.29, 4), (0.31, 8), (0.75, 16)):
        train, validation = hold_out(dataset_of(frames), share, 0)
        assert len(validation.gallery) == expected and len(train.train) == 20 - expected


def drawn_by_unions(places, wanted, rng):
    """The oracle: every choice made by the union of all frames."""
    held = set()
    order = rng.permutation(sorted(places)).tolist()
    for identity in order:
        if len(held | set(places[identity])) <= wanted:
            held |= set(places[identity])
    unions = [held | set(places[identity]) for identity in order]
    return min([held, *unions], key=lambda frames: abs(len(frames) - wanted))


@pytest.mark.parametrize("seed", range(20))
def test_people_are_drawn_as_by_unions(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 12, rng.integers(1, 30))
    places = {identity: rng.choice(60, size, replace=False).tolist() for identity, size in enumerate(sizes)}
    for wanted in (0.5, 1.0, 3.2, 9.0, 20.5, 40.0, 59.9):
        found, expected = (draw(places, wanted, np.random.default_rng(seed)) for draw in (_draw, drawn_by_unions))
        assert found == expected


def test_what_cannot_be_divided_is_one_sentence():
    everywhere = dataset_of([frame(i, [1, 2]) for i in range(10)])
    with pytest.raises(DataError, match=r"data.validation is 0.2, but every person .* is in 1.00 of the training fram"):
        hold_out(everywhere, 0.2, 0)
    with pytest.raises(DataError, match=r"data.validation is 0.9: without the 10 frames held out, nobody"):
        hold_out(everywhere, 0.9, 0)
    once = dataset_of([frame(i, [i]) for i in range(10)])
    with pytest.raises(DataError, match=r"nobody is in several of the 10 training frames"):
        hold_out(once, 0.2, 0)
    with pytest.raises(DataError, match=r"nobody is in several of the 0 training frames"):
        hold_out(dataclasses.replace(once, train=[]), 0.2, 0)
