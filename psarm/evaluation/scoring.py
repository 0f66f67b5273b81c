"""Score a detections file against a data set: the numbers of `psarm bench --detections`."""

from __future__ import annotations

import numpy as np

from psarm.errors import DataError
from psarm.evaluation.cbgm import PRW_K1, PRW_K2
from psarm.evaluation.detection import evaluate_detection
from psarm.evaluation.detections_file import DetectionsFile
from psarm.evaluation.pairs import paired_iou
from psarm.evaluation.protocol import DatasetLike, SearchProtocol
from psarm.evaluation.search import evaluate_search
from psarm.evaluation.types import DetectionSet

Metrics = dict[str, dict[str, float]]


def score_detections(
    dataset: DatasetLike | SearchProtocol, content: DetectionsFile, *, k1: int = PRW_K1, k2: int = PRW_K2
) -> Metrics:
    """All metrics of the PRW protocol, as fractions.

    Args:
        dataset: the data set the detections are of, or its protocol.
        content: detections, query embeddings and, for CBGM, contexts.
        k1: CBGM matches the images of the k1 most similar detections.
        k2: CBGM uses the first k2 people of the context.

    Returns:
        `detection` {recall, ap}; `search` and `search_cross_camera` {mAP, top1, top5, top10}; `search_cbgm` likewise
        when the file holds contexts.

    Raises:
        DataError: the detections are not of this data set: other gallery images, another number of queries, or a
            context that does not begin with its query's box.
    """
    protocol = dataset if isinstance(dataset, SearchProtocol) else SearchProtocol.from_dataset(dataset)
    gallery = _in_gallery_order(protocol, content)
    queries = content.query_embeddings
    if len(queries) != len(protocol.query_names):
        raise DataError(
            f"the detections file has {len(queries)} query embeddings, but the data set {len(protocol.query_names)} "
            "queries; write one for every query, in the data set's order."
        )
    metrics = {
        "detection": evaluate_detection(protocol, gallery).to_dict(),
        "search": evaluate_search(protocol, gallery, queries).to_dict(),
    }
    if content.context is not None:
        _check_query_first(protocol, content.context)
        cbgm = evaluate_search(protocol, gallery, queries, context=content.context, k1=k1, k2=k2)
        metrics["search_cbgm"] = cbgm.to_dict()
    metrics["search_cross_camera"] = evaluate_search(protocol, gallery, queries, cross_camera=True).to_dict()
    return metrics


def _in_gallery_order(protocol: SearchProtocol, content: DetectionsFile) -> DetectionSet:
    place = {name: index for index, name in enumerate(content.gallery_names)}
    known = set(protocol.gallery_names)
    unknown = [name for name in content.gallery_names if name not in known]
    missing = [name for name in protocol.gallery_names if name not in place]
    if unknown or missing:
        problems = []
        if unknown:
            problems.append(f"{len(unknown)} images that are not in the data set's gallery (first: {unknown[0]})")
        if missing:
            problems.append(f"not {len(missing)} of its {len(known)} images (first: {missing[0]})")
        raise DataError(
            f"the detections file lists {' and '.join(problems)}; "
            "list every gallery image once, those without detections with a count of 0."
        )
    return content.gallery.reordered(np.array([place[name] for name in protocol.gallery_names], np.int64))


def _check_query_first(protocol: SearchProtocol, context: DetectionSet) -> None:
    overlap = paired_iou(context.boxes[context.offsets[:-1]], protocol.query_boxes)
    if overlap.min() < 0.5:
        query = int(np.argmin(overlap))
        raise DataError(
            f"the context of query {query} ({protocol.query_names[query]}) begins with a box that is not the query's; "
            "the query's own box comes first."
        )
