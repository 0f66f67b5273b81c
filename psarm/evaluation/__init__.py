"""Detection and person search metrics; numpy and scipy only, so training, benchmarks and the runtime share them."""

from psarm.evaluation.cbgm import cbgm_similarity, match_query, rerank
from psarm.evaluation.detection import evaluate_detection
from psarm.evaluation.detections_file import DetectionsFile, read_detections, write_detections
from psarm.evaluation.protocol import SearchProtocol
from psarm.evaluation.scoring import score_detections
from psarm.evaluation.search import best_hits, evaluate_search, ground_truth_detections, rank_queries
from psarm.evaluation.types import DetectionMetrics, DetectionSet, ImageDetections, QueryHits, QueryRanks, SearchMetrics

__all__ = [
    "DetectionMetrics",
    "DetectionSet",
    "DetectionsFile",
    "ImageDetections",
    "QueryHits",
    "QueryRanks",
    "SearchMetrics",
    "SearchProtocol",
    "best_hits",
    "cbgm_similarity",
    "evaluate_detection",
    "evaluate_search",
    "ground_truth_detections",
    "match_query",
    "rank_queries",
    "read_detections",
    "rerank",
    "score_detections",
    "write_detections",
]
