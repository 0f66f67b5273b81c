import os
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from psarm.errors import ImageError
from psarm.runtime.images import FrameSource, find_files, iter_images, read_image

ORIENTATION = 0x112  # EXIF tag


def picture(height=20, width=30):
    """Smooth RGB, every corner its own colour."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 255 // width], axis=-1).astype(np.uint8)


def save(path, array, orientation=None, **options):
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    Image.fromarray(array).save(path, exif=exif, **options)
    return path


def as_viewed(rgb, orientation):
    """What a viewer shows for an EXIF orientation, from the standard's table."""
    return {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb),
    }[orientation]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_colour_comes_as_bgr(tmp_path, suffix):
    rgb = picture()
    options = {"lossless": True} if suffix == "webp" else {}
    image = read_image(save(tmp_path / f"a.{suffix}", rgb, **options))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, rgb[..., ::-1])


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = picture()[..., 0]
    for name in ("a.png", "a.tif"):
        image = read_image(save(tmp_path / name, grey))
        np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_transparency_is_laid_over_white(tmp_path, suffix):
    rgb = picture()
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    alpha[:, 10:20], alpha[:, 20:] = 128, 255
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    image = read_image(save(tmp_path / f"a.{suffix}", np.dstack([rgb, alpha]), **options))
    expected = rgb * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    np.testing.assert_allclose(image, expected[..., ::-1], atol=1.01 if suffix == "tif" else 0.51)
    assert (image[:, :10] == 255).all()


def test_grey_with_transparency_and_palette_with_transparency(tmp_path):
    grey_alpha = np.dstack([picture()[..., 0], np.full((20, 30), 255, np.uint8)])
    grey_alpha[:5, :, 1] = 0
    image = read_image(save(tmp_path / "la.png", grey_alpha))
    assert (image[:5] == 255).all()
    np.testing.assert_array_equal(image[5:, :, 1], grey_alpha[5:, :, 0])
    palette = Image.fromarray(picture()).quantize(8)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((3, 3)))
    assert (read_image(tmp_path / "p.png")[3, 3] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_rotation_is_applied(tmp_path, orientation, suffix):
    rgb = picture()
    options = {"quality": 95} if suffix == "jpg" else {"lossless": True}
    image = read_image(save(tmp_path / f"a.{suffix}", rgb, orientation, **(options if suffix != "png" else {})))
    expected = as_viewed(rgb, orientation)[..., ::-1].astype(int)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < (4 if suffix == "jpg" else 0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_turns_the_transparency_too(tmp_path, orientation):
    alpha = np.full((20, 30, 1), 255, np.uint8)
    alpha[:8, :5] = 0
    rgba = np.concatenate([picture(), alpha], axis=-1)
    image = read_image(save(tmp_path / "a.png", rgba, orientation))
    expected = as_viewed(rgba, orientation)
    expected = np.where(expected[..., 3:] == 0, 255, expected[..., :3])[..., ::-1]
    np.testing.assert_array_equal(image, expected)


def test_16_bits_are_scaled_to_8(tmp_path):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "grey.png"), values)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[0, :, 0], [0, 0, 1, 1, 128, 255])
    bgra = np.zeros((4, 5, 4), np.uint16)
    bgra[..., 0], bgra[..., 3] = 65535, 65535
    bgra[0, 0] = 0
    cv2.imwrite(str(tmp_path / "alpha.png"), bgra)
    image = read_image(tmp_path / "alpha.png")
    assert image[1, 1].tolist() == [255, 0, 0] and image[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_large_pictures_take_no_full_size_copies_in_a_wider_type(tmp_path, dtype):
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (40, 2500, 4), dtype, endpoint=True)
    picture = np.ascontiguousarray(np.tile(picture, (50, 1, 1)))
    limit = np.iinfo(dtype).max
    alpha = picture[..., 3:] / np.float32(limit)
    expected = np.rint(picture[..., :3] * alpha + limit * (1 - alpha)).astype(np.uint32)
    if dtype == np.uint16:
        expected = (expected + 128) // 257
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    tracemalloc.start()
    found = read_image(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, expected)
    # The file, both decoded pictures, the result, and less than one copy more.
    assert peak < path.stat().st_size + 3 * picture.nbytes


def test_a_unicode_path(tmp_path):
    folder = tmp_path / "съёмка 街"
    folder.mkdir()
    assert read_image(save(folder / "улица é.png", picture())).shape == (20, 30, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1), (3, 20_000)])
def test_tiny_and_very_long_pictures(tmp_path, shape):
    assert read_image(save(tmp_path / "a.png", np.zeros((*shape, 3), np.uint8))).shape == (*shape, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "gif"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_a_truncated_picture_is_refused(tmp_path, suffix, part):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ImageError, match=r"a\.\w+ is (damaged|cut short)"):
        read_image(path)


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello, I am no picture", "is damaged or not a picture"),
        (os.urandom(5000), "is damaged or not a picture"),
        (png_header(60_000, 60_000), r"more pixels than OpenCV decodes \(2\^30\)"),
        (png_header(200, 200), "is damaged or not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, content, says):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=says):
        read_image(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ImageError, match=r"Cannot read the picture .*gone\.jpg: No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(ImageError, match="videos are read by psarm detect"):
        read_image(tmp_path / "clip.mp4")


def test_floating_point_pictures_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.ones((4, 4, 3), np.float32))
    with pytest.raises(ImageError, match="float32 pixels"):
        read_image(tmp_path / "a.tif")


def test_folders_are_searched_in_order_without_hidden_files(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.png", ".hidden.png", ".cache/d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [str(path.relative_to(tmp_path)) for path in find_files([tmp_path])]
    assert names == ["a.JPG", "b.png", "sub/c.png"]
    assert find_files([tmp_path / "notes.txt", tmp_path / "b.png"]) == [tmp_path / "notes.txt", tmp_path / "b.png"]


def test_missing_paths_and_empty_folders_are_named_at_once(tmp_path):
    with pytest.raises(ImageError, match=r"no file or folder .*gone"):
        find_files([tmp_path / "gone"])
    with pytest.raises(ImageError, match="holds no picture or video"):
        find_files([tmp_path])


def test_iteration_reports_what_cannot_be_read_and_goes_on(tmp_path):
    save(tmp_path / "a.png", picture())
    (tmp_path / "b.png").write_bytes(b"")
    save(tmp_path / "c.png", picture(7, 9))
    errors = []
    frames = list(iter_images([tmp_path], on_error=errors.append))
    assert [(source.name, image.shape) for source, image in frames] == [
        (str(tmp_path / "a.png"), (20, 30, 3)),
        (str(tmp_path / "c.png"), (7, 9, 3)),
    ]
    assert len(errors) == 1 and "b.png is empty" in str(errors[0])
    with pytest.raises(ImageError, match=r"b\.png is empty"):
        list(iter_images([tmp_path]))


def test_a_source_can_be_read_again(tmp_path):
    path = save(tmp_path / "a.png", picture())
    [(source, image)] = iter_images([path])
    assert source == FrameSource(path)
    np.testing.assert_array_equal(source.read(), image)
