import numpy as np
import pytest
from PIL import Image

from psarm.data.image_sizes import read_image_sizes
from psarm.data.images import read_image
from psarm.errors import DataError


@pytest.fixture
def pictures(tmp_path):
    """Files of several formats as they are, then JPEGs, two of which lie on their side by their EXIF orientation."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8))
    paths = []
    for suffix in ("jpg", "png", "bmp", "webp"):
        paths.append(tmp_path / f"a.{suffix}")
        picture.save(paths[-1])
    for orientation in (3, 6, 8):
        paths.append(tmp_path / f"turned{orientation}.jpg")
        picture.save(paths[-1], exif=exif_of(orientation))
    return paths


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_sizes_are_those_of_the_decoded_images(pictures):
    sizes = read_image_sizes(pictures)
    assert sizes.tolist() == [[*read_image(path).shape[1::-1]] for path in pictures]
    assert sizes.tolist() == [[50, 30]] * 5 + [[30, 50]] * 2
    assert read_image_sizes([]).shape == (0, 2)


@pytest.mark.parametrize("suffix", ["jpg", "mpo", "png", "webp", "avif"])
def test_pictures_are_turned_as_opencv_turns_them(tmp_path, suffix):
    picture = Image.fromarray(np.zeros((30, 50, 3), np.uint8))
    several = {"save_all": True, "append_images": [picture]} if suffix == "mpo" else {}
    paths = [tmp_path / f"{orientation}.{suffix}" for orientation in [*range(10), 255]]
    for path in paths:
        picture.save(path, exif=exif_of(int(path.stem)), **several)
    sizes = read_image_sizes(paths).tolist()
    assert sizes == [[*read_image(path).shape[1::-1]] for path in paths]
    if suffix in ("jpg", "mpo", "png"):  # the others depend on OpenCV's version
        assert sizes == [[50, 30]] * 5 + [[30, 50]] * 4 + [[50, 30]] * 2


def test_an_orientation_elsewhere_than_in_exif_turns_nothing(tmp_path):
    picture = Image.fromarray(np.zeros((30, 50, 3), np.uint8))
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    picture.save(tmp_path / "xmp.jpg", xmp=xmp.encode())
    picture.save(tmp_path / "damaged.jpg", exif=b"Exif\0\0II*\0")
    paths = [tmp_path / "xmp.jpg", tmp_path / "damaged.jpg"]
    assert read_image_sizes(paths).tolist() == [[50, 30]] * 2
    assert [read_image(path).shape[:2] for path in paths] == [(30, 50)] * 2


def test_a_header_is_enough_for_a_png(pictures, monkeypatch):
    monkeypatch.setattr("psarm.data.image_sizes.read_image", lambda path: pytest.fail("decoded"))
    pictures[1].write_bytes(pictures[1].read_bytes()[:200])  # Pillow cannot decode it either
    assert read_image_sizes(pictures).tolist() == [[50, 30]] * 5 + [[30, 50]] * 2


def test_what_pillow_cannot_read_is_decoded(pictures, monkeypatch):
    def refuse(path):
        raise Image.DecompressionBombError("too large")

    monkeypatch.setattr(Image, "open", refuse)
    assert read_image_sizes(pictures[:2]).tolist() == [[50, 30]] * 2


def test_an_unreadable_image_is_named_or_left_to_the_loader(pictures, tmp_path):
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    broken.write_bytes(b"not an image")
    for path in (broken, missing):
        with pytest.raises(DataError, match=rf"^Cannot read {path} \("):
            read_image_sizes([pictures[0], path])
        assert read_image_sizes([path, pictures[0]], skip_unreadable=True).tolist() == [[1, 1], [50, 30]]


def test_a_cut_off_image_has_a_size(pictures):
    pictures[0].write_bytes(pictures[0].read_bytes()[:-20])
    assert read_image_sizes(pictures[:1]).tolist() == [[50, 30]]
