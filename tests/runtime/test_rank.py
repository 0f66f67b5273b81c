import numpy as np
import pytest

from psarm.errors import UsageError
from psarm.evaluation.cbgm import cbgm_similarity
from psarm.runtime import Detections, rank

DIM = 6


def unit(rng, count):
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def frames(rng, counts):
    made = []
    for count in counts:
        scores = rng.random(count, np.float32)
        corners = np.sort(rng.uniform(0, 99, (count, 2, 2)), axis=1).reshape(count, 4)
        made.append(Detections(corners, scores, unit(rng, count) * scores[:, None]))
    return made


@pytest.mark.parametrize("top_k", [None, 1, 4, 100])
def test_ranking_equals_a_plain_sort(top_k):
    rng = np.random.default_rng(0)
    gallery, query = frames(rng, [3, 0, 1, 5, 0]), unit(rng, 1)[0]
    everybody = [(f, i, float(p.embedding @ query)) for f, people in enumerate(gallery) for i, p in enumerate(people)]
    everybody.sort(key=lambda hit: -hit[2])
    hits = rank(query, gallery, top_k)
    assert [(hit.frame, hit.index) for hit in hits] == [(f, i) for f, i, _ in everybody][:top_k]
    for hit, (_, _, similarity) in zip(hits, everybody, strict=False):
        assert hit.similarity == pytest.approx(similarity, abs=1e-6)
        person = gallery[hit.frame][hit.index]
        np.testing.assert_array_equal(hit.box, person.box)
        assert hit.score == person.score


def test_equals_keep_their_order():
    rng = np.random.default_rng(1)
    [one] = frames(rng, [3])
    same = Detections(one.boxes, np.ones(3), np.repeat(one.embeddings[:1], 3, axis=0))
    hits = rank(unit(rng, 1)[0], [same, same])
    assert [(hit.frame, hit.index) for hit in hits] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("gallery", [[], [0], [0, 0]])
def test_nobody_to_rank(gallery):
    rng = np.random.default_rng(2)
    assert rank(unit(rng, 1)[0], frames(rng, gallery)) == []


def test_context_equals_matching_every_frame_on_its_own():
    rng = np.random.default_rng(3)
    for _ in range(10):
        gallery = frames(rng, [4, 2, 0, 6, 1])
        embeddings = unit(rng, 3)
        context = Detections(np.tile([0, 0, 9, 9], (3, 1)), np.ones(3), embeddings)
        hits = rank(embeddings[0], gallery, context=context, k1=100, k2=2)
        found = {(hit.frame, hit.index): hit.similarity for hit in hits}
        for number, people in enumerate(gallery):
            if len(people):
                expected = cbgm_similarity(embeddings[:2], people.embeddings)
                for index, similarity in enumerate(expected):
                    assert found[number, index] == pytest.approx(similarity, abs=1e-6)
        assert [hit.similarity for hit in hits] == sorted(found.values(), reverse=True)


def test_embeddings_of_another_size_are_refused():
    rng = np.random.default_rng(4)
    with pytest.raises(UsageError, match=r"must be \[6\].*got \[7\]"):
        rank(np.zeros(7, np.float32), frames(rng, [2]))
