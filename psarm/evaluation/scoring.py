"""Score a detections file against a data set: the numbers of `psarm bench --detections`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from psarm.errors import DataError
from psarm.evaluation.detection import evaluate_detection
from psarm.evaluation.detections_file import DetectionsFile
from psarm.evaluation.pairs import paired_iou
from psarm.evaluation.protocol import DatasetLike, SearchProtocol
from psarm.evaluation.search import evaluate_search
from psarm.evaluation.types import DetectionSet

Metrics = dict[str, dict[str, float]]


def score_detections(
    dataset: DatasetLike | SearchProtocol,
    content: DetectionsFile,
    *,
    gallery_sizes: Sequence[str] = (),
    k1: int | None = None,
    k2: int | None = None,
) -> Metrics:
    """All metrics of the data set's protocol, as fractions.

    Args:
        dataset: the data set the detections are of, or its protocol.
        content: detections, query embeddings and, for CBGM, contexts.
        gallery_sizes: galleries to search in beside the default one, by the names that the data set gives them, or
            "full" (also called "-1").
        k1: CBGM matches the images of the k1 most similar detections; None = as the data set has it.
        k2: CBGM uses the first k2 people of the context; None = as the data set has it.

    Returns:
        `detection` {recall, ap}; `search` {mAP, top1, top5, top10} in the default gallery, `search_<size>` in each of
        `gallery_sizes`; `search_cbgm` and `search_<size>_cbgm` when the file holds contexts; `search_cross_camera`, in
        the default gallery, where the data set has several cameras (on PRW always).

    Raises:
        DataError: the detections are not of this data set: other gallery images, another number of queries, or a
            context that does not begin with its query's box.
        UsageError: the data set has no gallery of that size.
    """
    protocol = dataset if isinstance(dataset, SearchProtocol) else SearchProtocol.from_dataset(dataset)
    for size in gallery_sizes:
        protocol.check_gallery(size)
    found = _in_gallery_order(protocol, content)
    queries, context = content.query_embeddings, content.context
    if len(queries) != len(protocol.query_names):
        raise DataError(
            f"the detections file has {len(queries)} query embeddings, but the data set {len(protocol.query_names)} "
            "queries; write one for every query, in the data set's order."
        )
    if context is not None:
        _check_query_first(protocol, context)
    metrics = {"detection": evaluate_detection(protocol, found).to_dict()}
    galleries: dict[str, str | None] = {"search": None} | {f"search_{size}": size for size in gallery_sizes}
    for key, gallery in galleries.items():
        metrics[key] = evaluate_search(protocol, found, queries, gallery=gallery).to_dict()
        if context is not None:
            cbgm = evaluate_search(protocol, found, queries, gallery=gallery, context=context, k1=k1, k2=k2)
            metrics[f"{key}_cbgm"] = cbgm.to_dict()
    if protocol.cross_camera:
        metrics["search_cross_camera"] = evaluate_search(protocol, found, queries, cross_camera=True).to_dict()
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
