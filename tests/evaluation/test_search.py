import dataclasses

import numpy as np
import pytest
from search_oracle import Case, Dataset, Frame, Query, random_case, search_oracle

from psarm.benchmarks.literal_search import LiteralSearch
from psarm.errors import DataError, UsageError
from psarm.evaluation import (
    DetectionSet,
    ImageDetections,
    SearchProtocol,
    evaluate_search,
    ground_truth_detections,
    rank_queries,
)


def check(case, cbgm=None, cross_camera=False):
    protocol = SearchProtocol.from_dataset(case.dataset)
    options = {"context": case.context, "k1": cbgm[0], "k2": cbgm[1]} if cbgm else {}
    got = rank_queries(protocol, case.detections, case.query_embeddings, cross_camera=cross_camera, **options)
    expected = search_oracle(case, cbgm, cross_camera)
    np.testing.assert_allclose(got.average_precisions, [ap for ap, _ in expected], rtol=0, atol=1e-9)
    assert got.first_ranks.tolist() == [rank for _, rank in expected]
    metrics = evaluate_search(protocol, case.detections, case.query_embeddings, cross_camera=cross_camera, **options)
    assert metrics.mAP == pytest.approx(np.mean([ap for ap, _ in expected]), abs=1e-9)
    for k in (1, 5, 10):
        expected_top = np.mean([0 <= rank < k for _, rank in expected])
        assert metrics.to_dict()[f"top{k}"] == pytest.approx(expected_top, abs=1e-9)
    return got


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("cross_camera", [False, True])
def test_equals_the_oracle(ties, cross_camera):
    found = 0
    for seed in range(60):
        found += (check(random_case(seed, ties), cross_camera=cross_camera).first_ranks >= 0).sum()
    assert found > 50


@pytest.mark.parametrize("cross_camera", [False, True])
@pytest.mark.parametrize("k", [(30, 4), (4, 3), (1, 1), (10, 2)])
def test_cbgm_equals_the_oracle(k, cross_camera):
    for seed in range(25):
        check(random_case(100 + seed), cbgm=k, cross_camera=cross_camera)


def test_float32_embeddings_with_exact_products():
    for seed in range(20):
        case = random_case(seed, ties=True)
        case.query_embeddings = case.query_embeddings.astype(np.float32)
        case.images = [ImageDetections(i.boxes, i.scores, i.embeddings.astype(np.float32)) for i in case.images]
        check(case)


def test_more_queries_than_a_chunk():
    check(random_case(7, queries=300, frames=20))


def test_ground_truth_boxes():
    case = random_case(3)
    protocol = SearchProtocol.from_dataset(case.dataset)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(len(protocol.gt_boxes), 5))
    rows = np.split(embeddings, np.cumsum([len(f.boxes) for f in case.dataset.gallery])[:-1])
    case.images = [
        ImageDetections(f.boxes, np.ones(len(f.boxes)), e) for f, e in zip(case.dataset.gallery, rows, strict=True)
    ]
    check(case)
    detections = ground_truth_detections(protocol, embeddings)
    direct = rank_queries(protocol, detections, case.query_embeddings)
    assert direct.average_precisions.tolist() == [
        pytest.approx(ap, abs=1e-9) for ap, _ in search_oracle(case)
    ]  # the person's own box always overlaps itself, so only the ranking decides
    with pytest.raises(UsageError, match="one each"):
        ground_truth_detections(protocol, embeddings[1:])


def one_person_case(found, similarities, boxes_of_gallery=1):
    """Query identity 1; one gallery frame besides the query's own holds it at [0,0,100,200]."""
    box = np.array([[0, 0, 100, 200]] * boxes_of_gallery, np.float32)
    gallery = [
        Frame("own.jpg", 1, box, np.ones(boxes_of_gallery, np.int64)),
        Frame("other.jpg", 1, box, np.ones(boxes_of_gallery, np.int64)),
    ]
    own = ImageDetections(box[:1], np.ones(1), np.full((1, 1), 9.0))
    embeddings = np.array(similarities, float).reshape(-1, 1)
    other = ImageDetections(np.array(found, float).reshape(-1, 4), np.ones(len(embeddings)), embeddings)
    dataset = Dataset(gallery, [Query("own.jpg", 1, box[0], 1)])
    return Case(dataset, [own, other], np.ones((1, 1)), [own])


def test_own_frame_is_left_out():
    case = one_person_case([[0, 0, 100, 200]], [0.5])
    assert check(case).average_precisions.tolist() == [1.0]


def test_a_second_match_in_the_image_is_a_negative():
    near = [0, 0, 100, 190]
    assert check(one_person_case([near, near], [0.5, 0.9])).average_precisions.tolist() == [1.0]
    # Equal similarities enter AP together (precision 1/2), while the earlier detection is the first hit.
    result = check(one_person_case([near, near], [0.9, 0.9]))
    assert (result.average_precisions.tolist(), result.first_ranks.tolist()) == ([0.5], [0])


def test_no_detection_at_all():
    assert check(one_person_case([], [])).average_precisions.tolist() == [0.0]
    case = one_person_case([], [])
    case.images[0] = ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 1)))
    assert check(case, cbgm=(30, 4)).first_ranks.tolist() == [-1]


def test_an_identity_twice_in_a_frame_counts_once():
    check(one_person_case([[0, 0, 100, 200]], [0.5], boxes_of_gallery=2))


def test_small_people_have_a_lower_iou_threshold():
    case = one_person_case([[0, 0, 10, 8]], [0.5])
    small = np.array([[0, 0, 10, 20]], np.float32)  # threshold 200 / (20 * 30) = 1/3; IoU 0.4
    case.dataset.gallery[1] = Frame("other.jpg", 1, small, np.array([1]))
    assert check(case).average_precisions.tolist() == [1.0]


def test_wrong_arguments_are_named():
    case = random_case(1)
    protocol = SearchProtocol.from_dataset(case.dataset)
    detections, queries = case.detections, case.query_embeddings
    fewer = DetectionSet.from_images(case.images[1:])
    with pytest.raises(UsageError, match="the gallery has 12"):
        rank_queries(protocol, fewer, queries)
    with pytest.raises(UsageError, match=r"shape \[7, 5\]; \[8, 5\]"):
        rank_queries(protocol, detections, queries[1:])
    with pytest.raises(UsageError, match="each of the 8 queries"):
        rank_queries(protocol, detections, queries, context=DetectionSet.from_images(case.contexts[1:]))
    wide = [ImageDetections(c.boxes, c.scores, np.ones((len(c.scores), 6))) for c in case.contexts]
    with pytest.raises(UsageError, match="size 6"):
        rank_queries(protocol, detections, queries, context=DetectionSet.from_images(wide))
    with pytest.raises(DataError, match="at least one query"):
        SearchProtocol.from_dataset(Dataset(case.dataset.gallery, []))


def test_what_is_searched_is_found_whatever_stands_outside():
    """Most of the gallery lies outside of the lists, much of it as similar as the person: nothing of it counts."""
    case = random_case(11, ties=True, queries=40, frames=60)
    protocol = SearchProtocol.from_dataset(case.dataset)
    rng = np.random.default_rng(0)
    few = [np.sort(rng.choice(60, 12, replace=False)) for _ in range(40)]
    listed = dataclasses.replace(protocol, galleries={"12": few}, default_gallery="12")
    ours = rank_queries(listed, case.detections, case.query_embeddings)
    literal = LiteralSearch(listed, case.detections)
    expected = [literal.search(query, case.query_embeddings[query]) for query in range(40)]
    np.testing.assert_allclose(ours.average_precisions, [ap for ap, _ in expected], rtol=0, atol=1e-9)
    assert ours.first_ranks.tolist() == [rank for _, rank in expected]
    assert (ours.first_ranks > 0).any()
