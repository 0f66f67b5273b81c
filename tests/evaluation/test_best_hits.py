"""The best hits of a query against its rank, and against similarities sorted one by one."""

import numpy as np
import pytest
from search_oracle import random_case

from psarm.evaluation import SearchProtocol, best_hits, rank_queries
from psarm.evaluation.search import SCORE_THRESHOLD


@pytest.mark.parametrize("cbgm", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_the_first_right_hit_is_the_rank(ties, cbgm):
    found = 0
    for seed in range(30):
        case = random_case(seed, ties)
        protocol = SearchProtocol.from_dataset(case.dataset)
        context = case.context if cbgm else None
        arguments = (protocol, case.detections, case.query_embeddings)
        every = best_hits(*arguments, 200, context=context)
        ranks = rank_queries(*arguments, context=context).first_ranks
        found += (ranks >= 0).sum()
        assert np.where(every.right.any(axis=1), every.right.argmax(axis=1), -1).tolist() == ranks.tolist()
        two = best_hits(*arguments, 2, context=context)
        for name in ("images", "boxes", "similarities", "right"):
            np.testing.assert_array_equal(getattr(two, name), getattr(every, name)[:, :2])
    assert found > 20


def test_hits_are_the_detections_by_falling_similarity():
    case = random_case(5)
    protocol = SearchProtocol.from_dataset(case.dataset)
    hits = best_hits(protocol, case.detections, case.query_embeddings, 200)
    for query in range(len(case.query_embeddings)):
        expected = []
        for image in np.flatnonzero(protocol.searched(query)):
            people = case.detections.of_image(image)
            for box, score, embedding in zip(people.boxes, people.scores, people.embeddings, strict=True):
                if score >= SCORE_THRESHOLD:
                    expected.append((float(embedding @ case.query_embeddings[query]), int(image), box.tolist()))
        expected.sort(key=lambda hit: -hit[0])
        count = len(expected)
        assert hits.images[query].tolist() == [image for _, image, _ in expected] + [-1] * (200 - count)
        assert hits.boxes[query, :count].tolist() == [box for _, _, box in expected]
        np.testing.assert_allclose(hits.similarities[query, :count], [s for s, _, _ in expected], atol=1e-12)
        assert not hits.right[query, count:].any()


def test_nothing_found():
    case = random_case(5)
    protocol = SearchProtocol.from_dataset(case.dataset)
    nobody = case.detections.at_least(2.0)
    hits = best_hits(protocol, nobody, case.query_embeddings, 2)
    assert (hits.images == -1).all() and not hits.right.any()
