"""Search on CUHK-SYSU's files, against the released rule read straight from the MATLAB files."""

import numpy as np
import pytest
from cuhk_disk import LISTS, write_cuhk, write_images, write_picture, write_pool, write_protocol, write_train
from scipy.io import loadmat
from sklearn.metrics import average_precision_score

from psarm.data.cuhk_sysu import read_cuhk_sysu
from psarm.evaluation import DetectionSet, ImageDetections, SearchProtocol, rank_queries


def random_test(rng, boxes):
    """Queries whose galleries hold their own image, images twice, and boxes that nobody annotated."""
    names = list(boxes)
    test = []
    for number in range(6):
        query = str(rng.choice(names))
        gallery = []
        for name in [*rng.choice(names, 5), query][: rng.integers(4, 7)]:
            around = boxes[name][rng.integers(len(boxes[name]))]
            box = (np.array(around) + rng.integers(0, 4)).tolist() if rng.random() < 0.6 else None
            gallery.append((str(name), box))
        test.append((f"p{number % 4 + 5}", (query, boxes[query][0]), gallery))
    return test


def released_precisions(root, size, names, detections, queries):
    """AP of every query; size -1: the items of TestG50, then all images left, the query's own excepted."""
    variable = f"TestG{50 if size == -1 else size}"
    protocol = loadmat(root / LISTS / f"{variable}.mat")[variable].squeeze()
    precisions = []
    for row, feature in enumerate(queries):
        tested = {str(protocol["Query"][row]["imname"][0, 0][0])}
        similar, truth, wanted, right = {}, {}, 0, 0
        for item in protocol["Gallery"][row].squeeze():
            name, box = str(item[0][0]), item[1][0].astype(np.int32)
            wanted += box.size > 0
            tested.add(name)
            if name not in similar:
                similar[name], truth[name] = detections[name].embeddings @ feature, box
        for name in names if size == -1 else ():
            if name not in tested:
                similar[name], truth[name] = detections[name].embeddings @ feature, np.zeros(0)
        labels, values = [], []
        for name, similarities in similar.items():
            label = np.zeros(len(similarities), int)
            if truth[name].size:
                x, y, w, h = truth[name].tolist()
                for place in np.argsort(-similarities):
                    x1, y1, x2, y2 = detections[name].boxes[place]
                    both = max(0, min(x2, x + w) - max(x1, x)) * max(0, min(y2, y + h) - max(y1, y))
                    if both / (w * h + (x2 - x1) * (y2 - y1) - both) >= min(0.5, w * h / ((w + 10) * (h + 10))):
                        label[place] = 1
                        right += 1
                        break
            labels += label.tolist()
            values += similarities.tolist()
        precisions.append(average_precision_score(labels, values) * right / wanted if right else 0.0)
    return precisions


@pytest.mark.parametrize("seed", range(6))
def test_search_equals_the_released_rule_on_the_files(tmp_path, seed):
    rng = np.random.default_rng(seed)
    root = write_cuhk(tmp_path / "CUHK-SYSU")
    boxes = {}
    for number in range(8):
        corner, sides = rng.integers(0, 40, (3, 2)), rng.integers(12, 45, (3, 2))
        boxes[f"s{number}.jpg"] = np.concatenate([corner, sides], axis=1).tolist()
        write_picture(root, f"s{number}.jpg")
    write_images(root, boxes)
    write_pool(root, list(boxes))
    write_train(root, [])
    small = random_test(rng, boxes)
    large = [
        (name, query, gallery) for (name, query, _), (_, _, gallery) in zip(small, random_test(rng, boxes), strict=True)
    ]
    write_protocol(root, 50, small)
    write_protocol(root, 100, large)
    images = {}
    for name, own in boxes.items():
        found = np.array(own, float)[rng.integers(0, 3, 4)] + rng.normal(0, 2, (4, 4))
        found[:, 2:] += found[:, :2]
        images[name] = ImageDetections(found, np.ones(4), rng.normal(size=(4, 5)))
    queries = rng.normal(size=(6, 5))
    protocol = SearchProtocol.from_dataset(read_cuhk_sysu(root))
    detections = DetectionSet.from_images([images[name] for name in protocol.gallery_names])
    for gallery, size in (("50", 50), (None, 100), ("100", 100), ("full", -1), ("-1", -1)):
        ranks = rank_queries(protocol, detections, queries, gallery=gallery)
        expected = released_precisions(root, size, protocol.gallery_names, images, queries)
        np.testing.assert_allclose(ranks.average_precisions, expected, rtol=0, atol=1e-9)
        assert max(expected) > 0
