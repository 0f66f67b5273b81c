import numpy as np
import pytest
from search_oracle import matching

from psarm.evaluation import cbgm_similarity, match_query, rerank


def test_match_query_equals_trying_all_matchings():
    rng = np.random.default_rng(0)
    unmatched = 0
    for _ in range(300):
        edges = rng.normal(size=(rng.integers(1, 5), rng.integers(1, 6)))
        best = dict(matching(edges))
        got = match_query(edges)
        if 0 in best:
            assert got == (best[0], pytest.approx(max(edges[r, c] for r, c in best.items())))
        else:
            assert got is None
            unmatched += 1
    assert unmatched > 10
    assert match_query(np.zeros((2, 0))) is None


def test_a_companion_lifts_the_match():
    context = np.array([[1.0, 0.0], [0.0, 1.0]])  # the query and a companion
    gallery = np.array([[0.6, 0.0], [0.1, 0.9]])  # someone alike beside the companion
    assert cbgm_similarity(context, gallery).tolist() == [0.9, 0.1]
    assert cbgm_similarity(context[:1], gallery).tolist() == [0.6, 0.1]
    # Two people, one detection that is the companion's: the query is left over, nothing changes.
    assert cbgm_similarity(context, gallery[1:]).tolist() == [0.1]
    assert cbgm_similarity(context, np.zeros((0, 2))).tolist() == []


def test_rerank_changes_only_images_of_the_best_and_never_the_input():
    rng = np.random.default_rng(1)
    offsets = np.array([0, 3, 3, 5, 9, 10])
    gallery, context = rng.normal(size=(10, 4)), rng.normal(size=(3, 4))
    similarity = gallery @ context[0]
    similarity[3:5] = -np.inf  # an image outside the gallery
    before = similarity.copy()
    for k1 in (0, 1, 3, 100):
        expected = similarity.copy()
        images = {int(np.searchsorted(offsets, i, side="right")) - 1 for i in np.argsort(-similarity)[:k1]} - {2}
        for image in images:
            rows = slice(offsets[image], offsets[image + 1])
            expected[rows] = cbgm_similarity(context[:2], gallery[rows])
        np.testing.assert_allclose(rerank(similarity, offsets, gallery, context, k1, 2), expected, atol=1e-12)
        assert (similarity == before).all()
    empty = rerank(np.zeros(0), np.array([0, 0]), np.zeros((0, 4)), context)
    assert len(empty) == 0
