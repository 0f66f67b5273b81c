"""Search in galleries listed per query, against literal loops."""

from dataclasses import replace

import numpy as np
import pytest
from gallery_oracle import (
    Where,
    all_items,
    gallery_names,
    gallery_oracle,
    random_lists_case,
    random_located_case,
)
from search_oracle import random_case

from psarm.errors import DataError, UsageError
from psarm.evaluation import DetectionSet, ImageDetections, SearchProtocol, ground_truth_detections, rank_queries
from psarm.evaluation import search as search_module

GALLERIES = ("3", "7", "mixed", "full", "-1")
LOCATED = ("first", "7", "plain", "full", "-1")


@pytest.fixture(params=["picked", "all"])
def way(request, monkeypatch):
    """Both ways to the similarities: the gallery's detections picked out, or those of all images."""
    monkeypatch.setattr(search_module, "_SPARSE", 0.5 if request.param == "picked" else 1e9)


def check(case, gallery, cbgm=None, cross_camera=False):
    protocol = SearchProtocol.from_dataset(case.dataset)
    context = case.context if cbgm else None
    k1, k2 = cbgm or (None, None)
    got = rank_queries(
        protocol,
        case.detections,
        case.query_embeddings,
        gallery=gallery,
        context=context,
        k1=k1,
        k2=k2,
        cross_camera=cross_camera,
    )
    expected = gallery_oracle(case, gallery or case.dataset.default_gallery, cbgm, cross_camera)
    np.testing.assert_allclose(got.average_precisions, [ap for ap, _ in expected], rtol=0, atol=1e-9)
    assert got.first_ranks.tolist() == [rank for _, rank in expected]
    return got


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("cross_camera", [False, True])
def test_equals_the_oracle(ties, cross_camera):
    found = nowhere = 0
    for seed in range(12):
        case = random_lists_case(seed, ties, frames=11 + seed % 3, queries=7)
        for gallery in (None, *GALLERIES):
            ranks = check(case, gallery, cross_camera=cross_camera).first_ranks
            found, nowhere = found + (ranks >= 0).sum(), nowhere + (ranks < 0).sum()
    assert found > 50 and nowhere > 50


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("cross_camera", [False, True])
def test_listed_boxes_equal_the_oracle(ties, cross_camera):
    seen = dict.fromkeys(("own", "own without box", "twice", "twice with boxes", "found own"), 0)
    for seed in range(200, 215):
        case = random_located_case(seed, ties, frames=8 + seed % 3, queries=7)
        for gallery in (None, *LOCATED):
            ranks = check(case, gallery, cross_camera=cross_camera).first_ranks
            for query, wanted in enumerate(case.dataset.queries):
                items = all_items(case, query, gallery or "7")
                own = [box is None for name, box in items if name == wanted.name]
                with_box = [name for name, box in items if box is not None]
                seen["own"] += len(own) > 0
                seen["own without box"] += own == [True]
                seen["twice"] += len({name for name, _ in items}) < len(items)
                seen["twice with boxes"] += len(set(with_box)) < len(with_box)
                seen["found own"] += set(with_box) == {wanted.name} and ranks[query] >= 0
    assert min(value for name, value in seen.items() if name != "found own") > 20
    assert cross_camera or seen["found own"] > 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("cbgm", [(10, 3), (4, 3), (1, 2)])
def test_cbgm_with_listed_boxes_equals_the_oracle(cbgm):
    for seed in range(300, 306):
        for gallery in LOCATED:
            check(random_located_case(seed), gallery, cbgm)


# Ties are left out: which of several equally good matchings is taken, nobody says.
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("cbgm", [(10, 3), (4, 3), (1, 2), (30, 4)])
def test_cbgm_equals_the_oracle(cbgm):
    changed = 0
    for seed in range(100, 108):
        case = random_lists_case(seed)
        for gallery in GALLERIES:
            matched, plain = check(case, gallery, cbgm), check(case, gallery)
            changed += (matched.average_precisions != plain.average_precisions).sum()
        check(case, "mixed", cbgm, cross_camera=True)
    assert changed > 0


def test_the_protocol_says_k1_k2_and_the_gallery():
    case = random_lists_case(3, queries=150, frames=40)
    case.dataset = replace(case.dataset, cbgm=(5, 2))
    protocol = SearchProtocol.from_dataset(case.dataset)

    def precisions(**options):
        ranks = rank_queries(protocol, case.detections, case.query_embeddings, context=case.context, **options)
        return ranks.average_precisions.tolist()

    assert precisions() == precisions(gallery="7", k1=5, k2=2)
    others = [precisions(gallery="full"), precisions(k1=30), precisions(k1=30, k2=4), precisions(k1=30, k2=1)]
    assert all(precisions() != other for other in others)


def test_both_ways_when_lists_are_few_and_many(monkeypatch):
    """Queries beyond one block; the choice between the two ways is left as it is."""
    case = random_lists_case(5, frames=120, queries=300)
    ways = []
    blocks = search_module._blocks

    def told(*arguments):
        for block in blocks(*arguments):
            ways.extend([block.similarities is not None] * len(block.queries))
            yield block

    monkeypatch.setattr(search_module, "_blocks", told)
    check(case, "3")
    assert ways == [False] * 300
    check(case, "full")
    assert ways[300:] == [True] * 300


def test_ground_truth_boxes():
    case = random_lists_case(8)
    protocol = SearchProtocol.from_dataset(case.dataset)
    embeddings = np.random.default_rng(0).normal(size=(len(protocol.gt_boxes), 5))
    rows = np.split(embeddings, np.cumsum([len(frame.boxes) for frame in case.dataset.gallery])[:-1])
    case.images = [
        ImageDetections(f.boxes, np.ones(len(f.boxes)), e) for f, e in zip(case.dataset.gallery, rows, strict=True)
    ]
    detections = ground_truth_detections(protocol, embeddings)
    for gallery in GALLERIES:
        for cbgm in (None, (4, 3)):
            expected = check(case, gallery, cbgm)
            context, (k1, k2) = (case.context, cbgm) if cbgm else (None, (None, None))
            got = rank_queries(
                protocol, detections, case.query_embeddings, gallery=gallery, context=context, k1=k1, k2=k2
            )
            assert got.average_precisions.tolist() == expected.average_precisions.tolist()


def test_searched_is_the_list_without_the_own_image():
    case = random_lists_case(2)
    protocol = SearchProtocol.from_dataset(case.dataset)
    own_listed = 0
    for gallery in GALLERIES:
        for query, wanted in enumerate(case.dataset.queries):
            names = [protocol.gallery_names[i] for i in np.flatnonzero(protocol.searched(query, gallery))]
            assert names == gallery_names(case, query, gallery)
            if gallery in case.dataset.galleries:
                listed = case.dataset.galleries[gallery][query]
                own_listed += wanted.name in [protocol.gallery_names[i] for i in listed]
    assert own_listed > 0
    protocol.searched(0, "full")[:] = False  # a new array each time
    assert protocol.searched(0, "full").sum() >= 11


def test_what_lies_outside_a_gallery_changes_nothing():
    case = random_lists_case(4)
    protocol = SearchProtocol.from_dataset(case.dataset)
    used = np.logical_or.reduce([protocol.searched(query, "3") for query in range(3)])
    case.dataset = replace(
        case.dataset,
        queries=case.dataset.queries[:3],
        galleries={"3": case.dataset.galleries["3"][:3]},
        default_gallery="3",
    )
    case.query_embeddings, case.contexts = case.query_embeddings[:3], case.contexts[:3]
    before = check(case, "3", (10, 3)).average_precisions
    assert not used.all()
    for index in np.flatnonzero(~used):
        found = case.images[index]
        case.images[index] = ImageDetections(found.boxes, np.ones(len(found.scores)), found.embeddings + 100)
        case.dataset.gallery[index].identities[:] = case.dataset.queries[0].identity
    assert check(case, "3", (10, 3)).average_precisions.tolist() == before.tolist()


def test_galleries_that_do_not_exist_are_named():
    case = random_lists_case(1)
    protocol = SearchProtocol.from_dataset(case.dataset)
    with pytest.raises(UsageError, match=r"--gallery-size 70: .*; it has 3, 7, mixed, full\.$"):
        rank_queries(protocol, case.detections, case.query_embeddings, gallery="70")
    prw = SearchProtocol.from_dataset(random_case(1).dataset)
    for name in ("full", "-1"):
        prw.check_gallery(name)
    with pytest.raises(UsageError, match=r"--gallery-size 100: .*; it has full\.$"):
        prw.check_gallery("100")


def test_an_image_listed_twice_is_ranked_once_and_counts_by_each_box():
    case = random_located_case(1, frames=8, queries=1)
    boxes = np.array([[0, 0, 100, 200], [300, 0, 400, 200]], np.float32)
    case.images = [ImageDetections(boxes, np.ones(2), np.array([[0.9], [0.5]]) / (i or 1)) for i in range(8)]
    case.query_embeddings = np.ones((1, 1))
    for items, expected in (([0, 1], (1 / 2, 0)), ([1], (0.0, -1)), ([0], (1.0, 0)), ([0, 1, 2], ((1 + 2 / 3) / 3, 0))):
        where = Where(np.array(items), np.tile(boxes[:1], (len(items), 1)))
        case.dataset = replace(
            case.dataset, galleries={"7": [np.array([1, 1, 2])]}, located={"7": [where]}, default_gallery="7"
        )
        protocol = SearchProtocol.from_dataset(case.dataset)
        ranks = rank_queries(protocol, DetectionSet.from_images(case.images), case.query_embeddings)
        assert (ranks.average_precisions[0], ranks.first_ranks[0]) == (pytest.approx(expected[0]), expected[1])
        check(case, "7")


def test_identities_at_the_end_of_int64():
    case = random_case(5)
    before = check_plain(case)
    for people in (*case.dataset.gallery, *case.dataset.queries):
        shift = 2**63 - 1 - 5  # identity 5 becomes the last there is, 6 the one of nobody in the gallery
        if hasattr(people, "identities"):
            people.identities = np.where(people.identities < 0, -1, people.identities + shift)
        else:
            people.identity = people.identity + shift if people.identity < 6 else 77
    assert check_plain(case) == before


def check_plain(case):
    protocol = SearchProtocol.from_dataset(case.dataset)
    return rank_queries(protocol, case.detections, case.query_embeddings).average_precisions.tolist()


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"7": []}, "gallery 7 says where 0 people are, but lists no images for so many"),
        ({"8": []}, "gallery 8 says where 0 people are"),
        ({"7": [Where(np.array([0, 7]), np.zeros((2, 4)))] * 8}, r"query 0 .* items \[0, 7\] .*rising and below 7"),
        ({"7": [Where(np.array([1, 0]), np.zeros((2, 4)))] * 8}, r"items \[1, 0\]"),
        ({"7": [Where(np.array([-1]), np.zeros((1, 4)))] * 8}, r"items \[-1\]"),
        ({"7": [Where(np.array([1]), np.zeros((2, 4)))] * 8}, r"by boxes of shape \[2, 4\]"),
    ],
)
def test_listed_boxes_that_do_not_fit_the_gallery(where, sentence):
    with pytest.raises(DataError, match=sentence):
        SearchProtocol.from_dataset(replace(random_lists_case(1).dataset, located=where))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"galleries": {"3": [np.zeros(1, int)] * 7}, "default_gallery": "3"}, "for 7 queries, but the data set has 8"),
        ({"galleries": {"3": [np.array([0, 12])] * 8}, "default_gallery": "3"}, r"of query 0 lists .* outside 0…11"),
        ({"galleries": {"3": [np.array([-1])] * 8}, "default_gallery": "3"}, r"of query 0 lists .* outside 0…11"),
        ({"default_gallery": "100"}, r"default gallery 100 is not one of the data set's \(3, 7, mixed\)"),
        ({"galleries": {}}, r"default gallery 7 is not one of the data set's \(none\)"),
    ],
)
def test_galleries_that_do_not_fit_the_data_set(change, sentence):
    with pytest.raises(DataError, match=sentence):
        SearchProtocol.from_dataset(replace(random_lists_case(1).dataset, **change))


def test_cross_camera_needs_cameras_unless_no_galleries_are_listed():
    listed, plain = random_lists_case(1).dataset, random_case(1).dataset
    SearchProtocol.from_dataset(listed).check_cross_camera()
    assert SearchProtocol.from_dataset(listed).cross_camera and SearchProtocol.from_dataset(plain).cross_camera
    for dataset in (listed, plain):
        for frame in dataset.gallery:
            frame.camera = 1
        with pytest.raises(UsageError, match=r"^--cross-camera: .* has one camera only"):
            SearchProtocol.from_dataset(dataset).check_cross_camera()
    assert not SearchProtocol.from_dataset(listed).cross_camera
    assert SearchProtocol.from_dataset(plain).cross_camera
