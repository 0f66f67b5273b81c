"""The literal loop that search is timed against gives the same figures, with ties and without."""

import numpy as np
import pytest
from gallery_oracle import random_lists_case, random_located_case
from search_oracle import random_case

from psarm.benchmarks.literal_search import LiteralSearch
from psarm.evaluation import SearchProtocol, rank_queries

CASES = {
    "identities": (random_case, (None, "full")),
    "lists": (random_lists_case, (None, "3", "mixed", "full")),
    "boxes": (random_located_case, (None, "first", "plain", "full")),
}


@pytest.mark.parametrize("cbgm", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("kind", CASES)
def test_the_literal_loop_equals_rank_queries(kind, ties, cbgm):
    make, galleries = CASES[kind]
    found = 0
    for seed in range(12):
        case = make(seed, ties)
        protocol = SearchProtocol.from_dataset(case.dataset)
        literal = LiteralSearch(protocol, case.detections)
        for gallery in galleries:
            for cross_camera in (False, True):
                got = rank_queries(
                    protocol,
                    case.detections,
                    case.query_embeddings,
                    gallery=gallery,
                    context=case.context if cbgm else None,
                    cross_camera=cross_camera,
                )
                expected = [
                    literal.search(
                        query,
                        embedding,
                        gallery,
                        case.contexts[query].embeddings if cbgm else None,
                        cross_camera,
                    )
                    for query, embedding in enumerate(case.query_embeddings)
                ]
                np.testing.assert_allclose(got.average_precisions, [ap for ap, _ in expected], rtol=0, atol=1e-9)
                assert got.first_ranks.tolist() == [rank for _, rank in expected]
                found += (got.first_ranks >= 0).sum()
    assert found > 50
