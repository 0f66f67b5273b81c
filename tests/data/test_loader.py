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


def test_every_frame_has_a_seed_of_its_own(dataset):
    frames = frames_of(dataset, seed=3)
    seeds = [frames[epoch, index].target["seed"] for epoch in range(3) for index in range(6)]
    assert all(seed.dtype == torch.int64 and seed.shape == () and seed >= 0 for seed in seeds)
    assert len(set(map(int, seeds))) == 18
    assert frames_of(dataset, seed=3)[2, 5].target["seed"] == seeds[-1] != frames_of(dataset, seed=4)[2, 5][1]["seed"]


def test_two_processes_see_what_one_does(dataset):
    frames = frames_of(dataset, flip=0.5)
    one = list(training_loader(frames, 4, 0))
    two = [list(training_loader(frames, 2, 0, process=process, processes=2)) for process in range(2)]
    assert len(one) == len(two[0]) == len(two[1]) == 1
    images = [image for batch in (two[0][0], two[1][0]) for image in batch.images]
    seeds = [target["seed"] for batch in (two[0][0], two[1][0]) for target in batch.targets]
    assert all(map(torch.equal, one[0].images, images)) and [t["seed"] for t in one[0].targets] == seeds


def test_batches_are_of_one_shape(dataset, tmp_path):
    frames = []
    for index, (height, width) in enumerate([(40, 60), (60, 40)] * 6):
        path = tmp_path / f"{index}.png"
        cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
        frames.append(Frame(path.name, path, 1, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)))
    frames = TrainingFrames(frames, {}, 40, 60, 0.0, 0)
    aspects = frames.read_aspects()
    assert aspects.tolist() == [1.5, 2 / 3] * 6
    shapes = [{image.shape for image in images} for images, _, _ in training_loader(frames, 3, 0, aspects=aspects)]
    assert len(shapes) == 4 and all(len(shape) == 1 for shape in shapes)
    shapes = [{image.shape for image in images} for images, _, _ in training_loader(frames, 3, 0)]
    assert any(len(shape) == 2 for shape in shapes)


@pytest.fixture
def with_broken(dataset, tmp_path):
    """The training frames, the second and fourth of which cannot be decoded."""
    frames = list(dataset.train)
    for index in (1, 3):
        path = tmp_path / f"broken{index}.jpg"
        path.write_bytes(b"not an image")
        frames[index] = replace(frames[index], path=path)
    return replace(dataset, train=frames)


def skipping(dataset, seed=0):
    return TrainingFrames(dataset.train, dataset.train_labels, HEIGHT, WIDTH, 0.0, seed, "skip")


def test_shapes_of_broken_images(with_broken):
    with pytest.raises(DataError, match=r"^Cannot read .*broken1.jpg \("):
        frames_of(with_broken).read_aspects()
    whole = WIDTH / HEIGHT
    assert skipping(with_broken).read_aspects().tolist() == [whole, 1, whole, 1, whole, whole]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_and_another_frame_takes_its_place(with_broken, workers):
    frames = skipping(with_broken)
    found = {}
    for epoch in range(3):
        loader = training_loader(frames, 2, workers)
        loader.batch_sampler.set_epoch(epoch)
        found[epoch] = list(loader)
        keys = [key for batch in loader.batch_sampler for key in batch]
        images = [image for batch in found[epoch] for image in batch.images]
        for key, image in zip(keys, images, strict=True):
            assert torch.equal(image, frames[key].image)  # drawn from seed, epoch and index
        sentences = {sentence for batch in found[epoch] for sentence in batch.skipped}
        paths = [with_broken.train[index].path for index in (1, 3)]
        assert len(sentences) == 2 and all(any(f"Cannot read {path} (" in s for s in sentences) for path in paths)
    assert len({frames[epoch, 1].image.numpy().tobytes() for epoch in range(20)}) == 4  # any of those that can be read


def test_a_replacement_brings_its_own_people(with_broken):
    frames = skipping(with_broken)
    for epoch in range(5):
        image, target, _ = frames[epoch, 1]
        [index] = [i for i in (0, 2, 4, 5) if torch.equal(frames[0, i].image, image)]
        assert torch.equal(target["boxes"], frames[0, index].target["boxes"])
        assert target["labels"].tolist() == frames[0, index].target["labels"].tolist()
        assert target["seed"] not in [frames[epoch, i].target["seed"] for i in (0, 2, 4, 5)]


def test_a_data_set_of_broken_images_is_an_error_not_a_search_without_end(with_broken):
    broken = replace(with_broken, train=[with_broken.train[1]] * 300)
    with pytest.raises(
        DataError, match=r"^None of 101 training frames can be read, .* The first: Cannot read .*broken"
    ):
        skipping(broken)[0, 0]
    with pytest.raises(DataError, match=r"^None of 1 training frames can be read"):
        skipping(replace(broken, train=broken.train[:1]))[0, 0]
