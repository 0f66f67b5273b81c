from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_prw import HEIGHT, WIDTH, write_tiny_prw
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from psarm.data.loader import TrainingFrames, training_loader
from psarm.data.prw import read_prw
from psarm.data.scenes import read_scenes
from psarm.data.types import Frame
from psarm.data.workers import plain_errors
from psarm.errors import DataError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_prw(write_tiny_prw(tmp_path_factory.mktemp("loader") / "prw", train=6))


def frames_of(dataset, min_size=HEIGHT, max_size=WIDTH, flip=0.0, seed=0):
    return TrainingFrames(dataset.train, dataset.train_labels, min_size, max_size, flip, seed)


def model_transform(min_size, max_size):
    return GeneralizedRCNNTransform(min_size, max_size, [0.0] * 3, [1.0] * 3)


@pytest.mark.parametrize("min_size", range(40, 60))
def test_image_and_boxes_reach_the_size_the_model_would_give_them(dataset, min_size):
    frame = dataset.train[0]
    whole = cv2.imread(str(frame.path))[:, :, ::-1].transpose(2, 0, 1) / np.float32(255)
    transform = model_transform(min_size, 75)
    expected, [want] = transform([torch.from_numpy(whole)], [{"boxes": torch.from_numpy(frame.boxes)}])
    image, target, _ = frames_of(dataset, min_size, 75)[0, 0]
    got, [have] = transform([image.float() / 255], [{"boxes": target["boxes"]}])
    assert got.image_sizes == expected.image_sizes
    torch.testing.assert_close(got.tensors, expected.tensors, atol=1 / 255, rtol=0)  # uint8 rounding at most
    torch.testing.assert_close(have["boxes"], want["boxes"], atol=1e-4, rtol=0)


def test_unscaled_item_is_the_image_itself(dataset):
    image, target, _ = frames_of(dataset)[0, 1]
    assert image.dtype == torch.uint8 and image.shape == (3, HEIGHT, WIDTH)
    assert np.array_equal(image.numpy(), cv2.imread(str(dataset.train[1].path))[:, :, ::-1].transpose(2, 0, 1))
    assert np.array_equal(target["boxes"].numpy(), dataset.train[1].boxes)


def test_labels_are_rows_of_the_table(dataset):
    labels = [frames_of(dataset)[0, index][1]["labels"].tolist() for index in range(3)]
    assert labels == [[0, -1], [1, -1], [2, -1]]  # identities 1, 2, 932


def test_flip_moves_boxes_with_the_people(dataset):
    image, target, _ = frames_of(dataset, flip=1.0)[0, 0]
    straight, given, _ = frames_of(dataset)[0, 0]
    assert torch.equal(image.flip(2), straight)
    for box in target["boxes"].int().tolist():
        inside = image[:, box[1] : box[3], box[0] : box[2]].float()
        assert inside.mean() > 110 and inside.std(dim=(1, 2)).max() < 10  # one flat colour
    widths = target["boxes"][:, 2] - target["boxes"][:, 0]
    assert torch.equal(widths, given["boxes"][:, 2] - given["boxes"][:, 0])


def test_a_frame_without_people(dataset):
    empty = replace(dataset.train[0], boxes=np.zeros((0, 4), np.float32), identities=np.zeros(0, np.int64))
    _, target, _ = TrainingFrames([empty], {}, 45, 80, 1.0, 0)[0, 0]
    assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,)


def test_epochs_are_the_same_with_any_number_of_workers(dataset):
    def epochs(workers, wanted):
        loader = training_loader(frames_of(dataset, flip=0.5, seed=3), 2, workers)
        for epoch in wanted:
            loader.batch_sampler.set_epoch(epoch)
            yield [(images, [target["boxes"] for target in targets]) for images, targets, _ in loader]

    alone, _, third = epochs(0, [0, 1, 2])
    [resumed] = epochs(2, [2])
    for (images, boxes), (other_images, other_boxes) in zip(third, resumed, strict=True):
        assert all(map(torch.equal, images, other_images)) and all(map(torch.equal, boxes, other_boxes))
    first_images, third_images = alone[0][0], third[0][0]
    assert not all(map(torch.equal, first_images, third_images))  # another order in another epoch


def test_an_epoch_shows_a_frame_once_and_drops_the_rest_of_the_last_batch(dataset):
    loader = training_loader(frames_of(dataset), 4, 0)
    [batch] = loader.batch_sampler
    assert len(set(batch)) == 4 and {epoch for epoch, _ in batch} == {0}
    assert len(loader) == len(list(loader)) == 1


def test_the_loader_leaves_the_global_generator_alone(dataset):
    torch.manual_seed(5)
    list(training_loader(frames_of(dataset), 2, 0))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_sentence(dataset, tmp_path, workers):
    broken = tmp_path / "c1s1_000001.jpg"
    broken.write_bytes(b"not an image")
    reason = "the image cannot be decoded; it is damaged or no picture"
    sentence = f"Cannot read {broken} ({reason}); psarm data check names every broken file."
    with pytest.raises(DataError) as error:
        list(read_scenes([dataset.train[0].path, broken], workers))
    assert str(error.value) == sentence
    frame = Frame("x", broken, 1, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    with pytest.raises(DataError) as error:
        list(plain_errors(training_loader(TrainingFrames([frame], {}, 45, 80, 0.5, 0), 1, workers)))
    assert str(error.value) == sentence


def test_scenes_come_whole_and_in_order(dataset):
    paths: list[Path] = [frame.path for frame in dataset.gallery]
    for path, image in zip(paths, read_scenes(paths, 2), strict=True):
        assert np.array_equal(image.numpy(), cv2.imread(str(path))[:, :, ::-1].transpose(2, 0, 1))
