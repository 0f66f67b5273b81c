import numpy as np
import pytest
from search_oracle import Dataset, Frame, detection_oracle, random_case
from sklearn.metrics import average_precision_score

from psarm.errors import UsageError
from psarm.evaluation import DetectionSet, ImageDetections, SearchProtocol, evaluate_detection
from psarm.evaluation.detection import average_precision


def test_equals_the_oracle():
    for seed in range(80):
        case = random_case(seed)
        got = evaluate_detection(SearchProtocol.from_dataset(case.dataset), case.detections)
        assert (got.recall, got.ap) == pytest.approx(detection_oracle(case), abs=1e-9)
        assert got.to_dict() == {"recall": got.recall, "ap": got.ap}


def test_average_precision_with_ties_equals_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(1, 30))
        labels, scores = rng.random(n) < 0.4, rng.integers(0, 6, n) / 4
        labels[0] = True
        assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert average_precision(np.zeros(3, bool), np.ones(3)) == 0
    assert average_precision(np.zeros(0, bool), np.zeros(0)) == 0


def test_only_mutual_best_partners_match():
    # Both detections overlap the one person by more than half; only the better is true, the other a false positive.
    case = random_case(0, queries=1)
    person = np.array([[0, 0, 100, 200]], np.float32)
    dataset = Dataset([Frame("a.jpg", 1, person, np.array([1]))], case.dataset.queries)
    found = np.array([[0, 0, 100, 150], [0, 0, 100, 190]], float)
    images = [ImageDetections(found, np.array([0.9, 0.8]), np.ones((2, 5)))]
    protocol = SearchProtocol.from_dataset(dataset)
    got = evaluate_detection(protocol, DetectionSet.from_images(images))
    assert (got.recall, got.ap) == (1.0, 0.5)
    low = [ImageDetections(found, np.array([0.9, 0.009]), np.ones((2, 5)))]
    assert evaluate_detection(protocol, DetectionSet.from_images(low)).ap == 1.0
    nothing = [ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5)))]
    assert evaluate_detection(protocol, DetectionSet.from_images(nothing)).to_dict() == {"recall": 0.0, "ap": 0.0}
    with pytest.raises(UsageError, match="of 2 images"):
        evaluate_detection(protocol, DetectionSet.from_images(images * 2))
