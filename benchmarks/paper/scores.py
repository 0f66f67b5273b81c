"""What a checkpoint's detections are worth: the tables, the gallery sizes (Fig. 5), ground-truth boxes (Fig. 8)."""

from __future__ import annotations

from dataclasses import asdict

from psarm.benchmarks.paper.measure import Found
from psarm.benchmarks.paper.work import Arrays
from psarm.evaluation import (
    SearchProtocol,
    best_hits,
    evaluate_search,
    ground_truth_detections,
    score_detections,
)
from psarm.evaluation.protocol import FULL

SHOWN = 2
"""Hits of a query that are kept: Fig. 7 shows two."""
GT_BOXES = "search_gt_boxes"


def score(protocol: SearchProtocol, found: Found) -> dict[str, dict[str, float]]:
    """As `score_detections` in every gallery, and `search_gt_boxes` and `search_gt_boxes_cbgm` in the default one."""
    default = default_gallery(protocol)
    sizes = [name for name in galleries(protocol) if name != default]
    metrics = score_detections(protocol, found.detections, gallery_sizes=sizes)
    queries, context = found.detections.query_embeddings, found.detections.context
    truth = ground_truth_detections(protocol, found.truth)
    metrics[GT_BOXES] = evaluate_search(protocol, truth, queries).to_dict()
    metrics[f"{GT_BOXES}_cbgm"] = evaluate_search(protocol, truth, queries, context=context).to_dict()
    return metrics


def galleries(protocol: SearchProtocol) -> list[str]:
    """Names of all galleries, `full` the last."""
    return [*protocol.galleries, FULL[0]]


def default_gallery(protocol: SearchProtocol) -> str:
    """Name of the gallery that figures are quoted for."""
    return protocol.default_gallery or FULL[0]


def group(protocol: SearchProtocol, gallery: str, cbgm: bool) -> str:
    """Where `score` has a gallery's figures."""
    name = "search" if gallery == default_gallery(protocol) else f"search_{gallery}"
    return f"{name}_cbgm" if cbgm else name


def gallery_frames(protocol: SearchProtocol, gallery: str) -> int:
    """How many different frames a query is searched in, on average."""
    counts = [int(protocol.searched(query, gallery).sum()) for query in range(len(protocol.query_names))]
    return round(sum(counts) / len(counts))


def hits(protocol: SearchProtocol, found: Found) -> Arrays:
    """The best hits of every query in the default gallery with CBGM: the fields of `QueryHits`."""
    content = found.detections
    return asdict(best_hits(protocol, content.gallery, content.query_embeddings, SHOWN, context=content.context))
