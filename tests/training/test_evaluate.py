import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from psarm.config import ModelConfig
from psarm.data.prw import read_prw
from psarm.errors import DataError
from psarm.model.builder import build_model
from psarm.training.evaluate import ModelEngine, evaluate


class Oracle(nn.Module):
    """Knows the ground truth of every image by heart: each person's box, and one direction an identity."""

    def __init__(self, dataset):
        super().__init__()
        self.register_parameter("anchor", nn.Parameter(torch.zeros(1)))
        self.known = {}
        identities = sorted({int(i) for frame in dataset.gallery for i in frame.identities})
        rows = np.eye(len(identities), dtype=np.float32)
        for frame in dataset.gallery:
            image = cv2.imread(str(frame.path))[:, :, ::-1].transpose(2, 0, 1)  # RGB
            embeddings = rows[[identities.index(i) for i in frame.identities]]
            embeddings[frame.identities < 0] = 0  # strangers are like nobody
            self.known[image.tobytes()] = (frame.boxes, embeddings)

    def _people(self, image):
        assert image.max() <= 1 and not self.training
        boxes, embeddings = self.known[(image * 255).round().byte().numpy().tobytes()]
        return torch.from_numpy(boxes), torch.from_numpy(embeddings)

    def detect(self, images):
        boxes, embeddings = self._people(*images)
        return [{"boxes": boxes, "scores": torch.full((len(boxes),), 0.9), "embeddings": 0.9 * embeddings}]

    def embed(self, images, boxes):
        known, embeddings = self._people(*images)
        return [embeddings[[int((known == box).all(1).nonzero()) for box in boxes[0]]]]

    def detect_around(self, images, boxes):
        known, embeddings = self._people(*images)
        order = (known != boxes).any(1).int().argsort(stable=True)
        scores = torch.tensor([1.0] + [0.9] * (len(known) - 1))
        return [{"boxes": known[order], "scores": scores, "embeddings": embeddings[order]}]


@pytest.mark.parametrize(("cbgm", "workers"), [(False, 0), (True, 0), (False, 2)])
def test_a_model_that_knows_everything_scores_100(prw, cbgm, workers):
    dataset = read_prw(prw)
    metrics = evaluate(Oracle(dataset), dataset, cbgm, workers)
    assert metrics.keys() == {"detection", "search", "search_cross_camera"} | ({"search_cbgm"} if cbgm else set())
    for part in metrics.values():
        assert all(value == pytest.approx(1) for value in part.values())


def test_the_engine_is_the_model(prw):
    torch.manual_seed(0)
    config = ModelConfig(backbone="resnet18", width=0.25, min_size=64, max_size=120, roi_size=7, score_thresh=0.0)
    config = dataclasses.replace(config, post_nms_top_n_test=20)
    model = build_model(config).eval()
    engine = ModelEngine(model)
    image = torch.randint(0, 256, (3, 70, 110), dtype=torch.uint8)
    box = np.array([10, 12, 40, 60.5])
    given = torch.tensor(box[None], dtype=torch.float32)
    [plain] = model.detect([image / 255])
    [around] = model.detect_around([image / 255], given)
    for found, expected in ((engine.detect(image), plain), (engine.detect_around(image, box), around)):
        assert len(found.scores) > 1
        for key, value in expected.items():
            assert np.array_equal(getattr(found, key), value.numpy())
    assert np.array_equal(engine.embed(image, box[None]), model.embed([image / 255], [given])[0].numpy())


def test_nothing_to_measure(prw):
    dataset = dataclasses.replace(read_prw(prw), queries=[])
    with pytest.raises(DataError, match="0 queries"):
        evaluate(Oracle(dataset), dataset)


def test_a_model_that_finds_nobody_scores_0(prw, tmp_path):
    config = ModelConfig(backbone="resnet18", width=0.25, min_size=64, max_size=120, roi_size=7, score_thresh=1.0)
    metrics = evaluate(build_model(config), read_prw(prw), cbgm=False)
    assert all(value == 0 for part in metrics.values() for value in part.values())
