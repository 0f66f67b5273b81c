"""A model that need not be trained."""

import cv2
import numpy as np
import torch
from torch import nn


class Oracle(nn.Module):
    """Knows the ground truth of every image by heart: each person's box, and one direction an identity.

    `noise` makes it err.
    """

    def __init__(self, dataset, noise=0.0):
        super().__init__()
        rng = np.random.default_rng(0)
        self.register_parameter("anchor", nn.Parameter(torch.zeros(1)))
        self.known = {}
        identities = sorted({int(i) for frame in dataset.gallery for i in frame.identities})
        rows = np.eye(len(identities), dtype=np.float32)
        for frame in dataset.gallery:
            image = cv2.imread(str(frame.path))[:, :, ::-1].transpose(2, 0, 1)  # RGB
            embeddings = rows[[identities.index(i) for i in frame.identities]]
            embeddings[frame.identities < 0] = 0  # strangers are like nobody
            embeddings += noise * rng.standard_normal(embeddings.shape, np.float32)
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
