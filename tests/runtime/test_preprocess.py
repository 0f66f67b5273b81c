import numpy as np
import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from psarm.runtime import preprocess
from psarm.runtime.manifest import Preprocessing
from psarm.runtime.preprocess import make_batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def rule(min_size, max_size):
    return Preprocessing(min_size, max_size, 32, MEAN, STD, "RGB", (0, 1), "bilinear")


def torchvision_batch(frames, min_size, max_size):
    transform = GeneralizedRCNNTransform(min_size, max_size, list(MEAN), list(STD)).eval()
    rgb = [torch.from_numpy(np.ascontiguousarray(f[..., ::-1].transpose(2, 0, 1))).float() / 255 for f in frames]
    batch, _ = transform(rgb)
    return batch.tensors.numpy(), batch.image_sizes


def random_frame(rng, height, width):
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def smooth_frame(rng, height, width):
    """Slopes of at most a few grey levels a pixel, as in a picture."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(20, 40) + y / rng.uniform(20, 40) + phase) for phase in range(3)]
    return np.rint(127.5 + 127 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(48, 64), (97, 61), (31, 200), (200, 31), (96, 160), (1, 1), (7, 300), (333, 250)])
def test_one_frame_equals_torchvision(shape):
    # White noise shows the rounding of sample positions most: a grey level is 0.017.
    for make, tolerance in ((smooth_frame, 1e-5), (random_frame, 2e-4)):
        frame = make(np.random.default_rng(1), *shape)
        batch = make_batch([frame], rule(96, 160))
        images, sizes = torchvision_batch([frame], 96, 160)
        assert [tuple(size) for size in batch.image_sizes.tolist()] == sizes
        assert batch.images.dtype == np.float32 and batch.image_sizes.dtype == np.int64
        np.testing.assert_allclose(batch.images, images, atol=tolerance, rtol=0)


def test_frames_of_different_sizes_are_padded_together():
    rng = np.random.default_rng(2)
    for _ in range(10):
        frames = [smooth_frame(rng, *rng.integers(10, 260, 2).tolist()) for _ in range(3)]
        batch = make_batch(frames, rule(96, 160))
        images, sizes = torchvision_batch(frames, 96, 160)
        assert [tuple(size) for size in batch.image_sizes.tolist()] == sizes
        np.testing.assert_allclose(batch.images, images, atol=1e-5, rtol=0)


def test_a_view_that_is_not_contiguous_is_fine():
    frame = random_frame(np.random.default_rng(3), 80, 120)
    np.testing.assert_array_equal(
        make_batch([frame[:, ::-1]], rule(96, 160)).images,
        make_batch([np.ascontiguousarray(frame[:, ::-1])], rule(96, 160)).images,
    )


@pytest.mark.parametrize("shape", [(97, 61), (300, 222), (5, 700), (50, 40), (1, 1), (1, 400)])
def test_large_frames_give_the_same_without_a_float_copy(shape, monkeypatch):
    frame = smooth_frame(np.random.default_rng(4), *shape)
    usual = make_batch([frame], rule(96, 160)).images
    monkeypatch.setattr(preprocess, "LARGE_FRAME_PIXELS", 0)
    np.testing.assert_allclose(make_batch([frame], rule(96, 160)).images, usual, atol=1e-5, rtol=0)


def test_an_extreme_aspect_keeps_one_pixel():
    assert make_batch([np.zeros((20_000, 1, 3), np.uint8)], rule(96, 160)).images.shape == (1, 3, 160, 32)
