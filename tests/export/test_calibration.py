"""Calibration pictures: which are taken, how they are prepared, and what is refused."""

import cv2
import numpy as np
import pytest
from tiny_prw import write_tiny_prw

from psarm.data.prw import read_prw
from psarm.errors import DataError, ImageError, UsageError
from psarm.export.precision.calibration import MIN_FRAMES, read_calibration
from psarm.runtime.images import read_image
from psarm.runtime.manifest import Preprocessing
from psarm.runtime.preprocess import make_batch

RULE = Preprocessing(60, 100, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "RGB", (0.0, 1.0), "bilinear")


def write_pictures(folder, count):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:03d}.png"), rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))


def test_folder(tmp_path):
    """Evenly over all pictures with those of subfolders; no videos, hidden files or other things."""
    write_pictures(tmp_path, 50)
    write_pictures(tmp_path / "more", 11)
    write_pictures(tmp_path / ".thumbnails", 3)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "clip.mp4").write_bytes(b"no picture")
    calibration = read_calibration(tmp_path, RULE, limit=16)
    names = [str(path.relative_to(tmp_path)) for path in calibration.frames]
    assert names == [*(f"{4 * number:03d}.png" for number in range(13)), "more/002.png", "more/006.png", "more/010.png"]
    assert len(calibration) == 16
    assert calibration.source == f"16 of the 61 pictures of {tmp_path}"
    assert len(read_calibration(tmp_path, RULE, limit=100)) == 61


def test_prepared_as_in_the_runtime(tmp_path):
    write_pictures(tmp_path, MIN_FRAMES)
    calibration = read_calibration(tmp_path, RULE)
    for path, batch in zip(sorted(tmp_path.glob("*.png")), calibration, strict=True):
        expected = make_batch([read_image(path)], RULE)
        assert np.array_equal(batch.images, expected.images)
        assert np.array_equal(batch.image_sizes, expected.image_sizes)


def test_training_frames_of_a_data_set(tmp_path):
    root = write_tiny_prw(tmp_path / "prw", train=MIN_FRAMES + 2, test=5)
    calibration = read_calibration(root, RULE)
    assert list(calibration.frames) == [frame.path for frame in read_prw(root).train]
    assert calibration.source == f"all 18 training frames of {root}"


def test_a_data_sets_test_frames_are_compared_on(tmp_path):
    root = write_tiny_prw(tmp_path / "prw", train=MIN_FRAMES, test=5)
    calibration = read_calibration(root, RULE, compare=4)
    assert len(calibration) == MIN_FRAMES
    tests = [frame.path for frame in read_prw(root).gallery]
    assert calibration.compared == (tests[0], tests[1], tests[3], tests[4])
    assert calibration.compared_source == f"4 test frames of {root}, none of which int8 was calibrated on"
    assert read_calibration(root, RULE, compare=9).compared == tuple(tests)


@pytest.mark.parametrize("compare, enough", [(4, True), (5, False)])
def test_pictures_to_compare_on_are_left_out_where_enough_remain(tmp_path, compare, enough):
    write_pictures(tmp_path, MIN_FRAMES + 4)
    calibration = read_calibration(tmp_path, RULE, compare=compare)
    both = {*calibration.frames} & {*calibration.compared}
    assert len(calibration) == MIN_FRAMES + 4 * (not enough) and len(calibration.compared) == compare
    share = f"{MIN_FRAMES} of the 20" if enough else "all 20"
    assert calibration.source == f"{share} pictures of {tmp_path}"
    share = "none" if enough else "all"
    assert calibration.compared_source == f"{compare} pictures of {tmp_path}, {share} of which int8 was calibrated on"
    assert len(both) == (0 if enough else compare)


def test_too_few(tmp_path):
    for count, found in ((0, "no pictures"), (1, "only 1 picture"), (2, "only 2 pictures")):
        write_pictures(tmp_path / str(count), count)
        with pytest.raises(UsageError, match=f"holds {found}; int8 is calibrated on at least {MIN_FRAMES} pictures"):
            read_calibration(tmp_path / str(count), RULE)
    few = write_tiny_prw(tmp_path / "prw", train=3)
    with pytest.raises(UsageError, match="holds only 3 training frames; "):
        read_calibration(few, RULE)


def test_no_folder(tmp_path):
    with pytest.raises(UsageError, match=r"There is no folder .*nowhere to calibrate int8 on"):
        read_calibration(tmp_path / "nowhere", RULE)


def test_what_cannot_be_read(tmp_path):
    write_pictures(tmp_path / "pictures", MIN_FRAMES)
    (tmp_path / "pictures" / "003.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ImageError, match=r"003\.png is cut short"):
        list(read_calibration(tmp_path / "pictures", RULE))
    root = write_tiny_prw(tmp_path / "prw")
    (root / "frame_train.mat").unlink()
    with pytest.raises(DataError, match="frame_train"):
        read_calibration(root, RULE)
