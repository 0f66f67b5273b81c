import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from prw_files import HEIGHT, WIDTH, write_list, write_matrix, write_prw, write_queries

from psarm.cli import run as psarm
from psarm.cli.data import command
from psarm.data.check import box_problem
from psarm.data.check_prw import check_prw
from psarm.data.contact_sheet import write_contact_sheet
from psarm.data.prw import read_prw
from psarm.data.types import Frame
from psarm.errors import DataError, UsageError

# Of the data set that `write_prw` makes.
NOWHERE = ("query_info.txt", "query 1 (identity 8 in c1s2_000176.jpg): nowhere in its gallery, so never found.")


@pytest.fixture
def root(tmp_path):
    return write_prw(tmp_path / "PRW")


def found(findings):
    return {(finding.file, finding.message) for finding in findings}


def test_a_good_data_set_has_no_errors(root):
    report = check_prw(root)
    assert report.errors == [] and found(report.warnings) == {NOWHERE}
    dataset = read_prw(root)
    for mine, theirs in ((report.train, dataset.train), (report.gallery, dataset.gallery)):
        assert [frame.name for frame in mine] == [frame.name for frame in theirs]
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a.boxes, b.boxes)
            np.testing.assert_array_equal(a.identities, b.identities)


def test_statistics(root):
    statistics = check_prw(root).to_dict()
    assert statistics["splits"] == {
        "train": {"frames": 2, "boxes": 3, "unlabelled": 1, "identities": 2},
        "test": {"frames": 3, "boxes": 4, "unlabelled": 1, "identities": 2},
    }
    assert statistics["cameras"]["test"][3] == {"frames": 1, "boxes": 1, "unlabelled": 0, "identities": 1}
    assert statistics["image_sizes"] == {f"{WIDTH}x{HEIGHT}": 5}
    assert statistics["box_widths"][0] == 20 and statistics["box_widths"][-1] == 30
    assert statistics["people_per_frame"][-1] == 3
    assert statistics["queries"] == {
        "queries": 2,
        "identities": 2,
        "gallery_frames": [0.0, 0.1, 0.2, 0.5, 0.8, 0.9, 1.0],  # identity 7 is in one other frame, 8 in none
        "other_cameras": [0.0, 0.1, 0.2, 0.5, 0.8, 0.9, 1.0],
        "without_match": 1,
    }


def break_everything(root):
    """Damage of every kind, each in its own file where it can be."""
    frames = {f"c1s1_{number:06d}": "train" for number in range(9)}
    for number, frame in enumerate(frames):
        write_matrix(root, frame, [[100 + number, 10, 10, 20, 20]])
        (root / "frames" / f"{frame}.jpg").write_bytes((root / "frames" / "c1s1_000151.jpg").read_bytes())
    write_list(root, "train", list(frames))
    image, annotation = root / "frames", root / "annotations"
    (image / "c1s1_000000.jpg").unlink()
    (image / "c1s1_000001.jpg").write_bytes(b"")
    whole = (image / "c1s1_000002.jpg").read_bytes()
    (image / "c1s1_000002.jpg").write_bytes(whole[: len(whole) // 2])
    (image / "c1s1_000003.jpg").write_bytes(b"not an image")
    (annotation / "c1s1_000004.jpg.mat").unlink()
    (annotation / "c1s1_000005.jpg.mat").write_bytes(b"MATLAB")
    write_matrix(root, "c1s1_000006", np.ones((2, 4)))
    rows = [
        [1, 5, 5, 0, 9],
        [2, 500, 5, 9, 9],
        [3, 100, 5, 50, 9],
        [4, np.nan, 5, 9, 9],
        [5, 5, 5, 9, 9],
        [5, 9, 9, 9, 9],
    ]
    write_matrix(root, "c1s1_000007", rows)
    write_matrix(root, "c1s1_000008", [[9, -5, 5, 30, 30], [7, 5, 5, 9, 9]])
    write_queries(
        root, ["7 40 10 25", "7 40 10 25 50 c3s2_999999", "9 40 10 25 50 c3s2_000176", "7 990 0 9 9 c3s2_000176"]
    )


def test_every_broken_file_is_named(root):
    break_everything(root)
    report = check_prw(root)
    errors, warnings = found(report.errors), found(report.warnings)
    size = f"{WIDTH}x{HEIGHT}"
    seventh = "annotations/c1s1_000007.jpg.mat"
    assert {
        ("frames/c1s1_000000.jpg", "the image is missing."),
        ("frames/c1s1_000001.jpg", "the image is empty (0 bytes)."),
        ("frames/c1s1_000002.jpg", "the image is cut off: the JPEG has no end marker."),
        ("frames/c1s1_000003.jpg", "the image cannot be decoded; it is damaged or no picture."),
        ("annotations/c1s1_000004.jpg.mat", "the file is missing."),
        (seventh, "row 0: the box x 5, y 5, w 0, h 9 has no area."),
        (seventh, f"row 1: the box x 500, y 5, w 9, h 9 lies wholly outside the {size} image."),
        (seventh, f"row 2: the box x 100, y 5, w 50, h 9 lies mostly outside the {size} image."),
        (seventh, "row 3: the box x nan, y 5, w nan, h 9 is not finite."),
        ("query_info.txt", "line 1: expected `identity x y w h frame`, got '7 40 10 25'."),
        ("query_info.txt", "line 2: the frame frames/c3s2_999999.jpg is missing."),
        ("query_info.txt", f"line 4: the box x 990, y 0, w 9, h 9 lies wholly outside the {size} image."),
    } <= errors
    files = {file for file, _ in errors}
    assert {"annotations/c1s1_000005.jpg.mat", "annotations/c1s1_000006.jpg.mat"} < files
    assert len(errors) == len(report.errors) == 14
    assert {
        (
            "annotations/c1s1_000008.jpg.mat",
            f"row 0: the box x -5, y 5, w 30, h 30 reaches 5 pixels outside the {size} image.",
        ),
        ("frames/c1s1_000151.jpg", "the frame is listed neither in frame_train.mat nor in frame_test.mat."),
        (seventh, "identity 5 appears 2 times in this frame."),
        ("query_info.txt", "line 3: identity 9 is not annotated in its frame c3s2_000176.jpg."),
        ("frame_test.mat", "in training and test frames alike: 1 identities (7); test people should be unseen."),
        ("query_info.txt", "query 0 (identity 9 in c3s2_000176.jpg): nowhere in its gallery, so never found."),
    } <= warnings


@pytest.mark.parametrize("name", ["frame_train.mat", "frame_test.mat", "query_info.txt"])
def test_a_missing_list_does_not_stop_the_check(root, name):
    break_everything(root)
    before = {file for file, _ in found(check_prw(root).errors)}
    (root / name).unlink()
    after = {file for file, _ in found(check_prw(root).errors)}
    # Frames of a missing list are still found in the folders; one without both files is beyond finding.
    assert after - {name} >= before - {name} - {"frames/c1s1_000000.jpg"}
    assert name in after


def test_a_box_too_thin_for_whole_pixels_is_named(root):
    write_matrix(root, "c1s1_000151", [[1, 5.1, 5, 0.8, 9]])
    report = check_prw(root)
    message = "row 0: the box x 5.1, y 5, w 0.8, h 9 has no area in whole pixels."
    assert found(report.errors) == {("annotations/c1s1_000151.jpg.mat", message)}
    assert report.train[0].boxes.shape == read_prw(root).train[0].boxes.shape == (0, 4)


def test_numbers_out_of_range_are_named(root):
    write_matrix(root, "c1s1_000151", [[478, 1e308, 20, 1e308, 40]])
    write_matrix(root, "c1s2_000176", np.array([[2**63 + 5, 0, 0, 20, 40]], np.uint64), "anno_previous")
    write_queries(root, [f"{identity} 40 10 25 50 c3s2_000176" for identity in (7, -2, 10**21)])
    errors = found(check_prw(root).errors)
    assert len(errors) == 4
    assert {
        (
            "query_info.txt",
            f"line {line}: identity {identity} is out of range; expected a whole number from 0 to 2^63 - 1.",
        )
        for line, identity in ((2, -2), (3, 10**21))
    } < errors
    assert ("annotations/c1s1_000151.jpg.mat", "row 0: the box x 1e+308, y 20, w inf, h 40 is not finite.") in errors
    assert any("row 0 has identity 9223372036854775813" in message for _, message in errors)


def test_unlisted_files_and_wrong_names(root):
    (root / "frames" / "street.jpg").write_bytes(b"")
    (root / "frames" / "Thumbs.db").write_bytes(b"")
    write_matrix(root, "c5s1_000001", [[1, 5, 5, 9, 9]])
    report = check_prw(root)
    assert ("frames/street.jpg", "frame name 'street.jpg' holds no camera; PRW names look like c1s1_000151.") in found(
        report.errors
    )
    assert ("frames/c5s1_000001.jpg", "the image is missing.") in found(report.errors)
    assert "annotations/c5s1_000001.jpg.mat" in {file for file, _ in found(report.warnings)}
    assert len(report.errors) == 2


def test_a_frame_in_both_lists(root):
    write_list(root, "train", ["c1s1_000151", "c2s1_000151", "c3s2_000176"])
    messages = [finding.message for finding in check_prw(root).warnings]
    assert any(message.startswith("c3s2_000176.jpg is listed for training too") for message in messages)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="not a PRW data set: frames/"):
        check_prw(tmp_path)


def test_box_problem_at_the_edges():
    size = (100, 50)
    fine = [[0, 0, 100, 50], [-1, -1, 30, 30], [80, 20, 101, 51]]
    assert all(box_problem(np.array(box, float), size) is None for box in fine)
    assert box_problem(np.array([-6.0, 0, 30, 30]), size)[0] is False
    assert box_problem(np.array([-31.0, 0, 30, 30]), size)[0] is True
    assert "the image" in box_problem(np.array([-31.0, 0, 30, 30]), None)[1]
    assert box_problem(np.array([5000.0, 0, 6000, 30]), None) is None


def test_contact_sheet_shows_cameras_in_turn_and_passes_over_unreadable_frames(root, tmp_path):
    report = check_prw(root)
    frames = report.train + report.gallery
    (root / "frames" / "c2s1_000151.jpg").write_bytes(b"")
    for name in ("sheet.png", "new/sheet.JPG"):
        assert write_contact_sheet(tmp_path / name, frames) == 4
        sheet = cv2.imread(str(tmp_path / name))
        assert sheet.shape[1] > 4 * 480 and sheet.shape[0] < 2 * 300
        assert sheet[:270].std() > 20
    assert write_contact_sheet(tmp_path / "two.png", frames, count=2) == 2
    with pytest.raises(UsageError, match="must end in"):
        write_contact_sheet(tmp_path / "sheet.gif", frames)
    broken = [Frame("x.jpg", tmp_path / "x.jpg", 1, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))]
    with pytest.raises(DataError, match="no frame can be shown"):
        write_contact_sheet(tmp_path / "none.png", broken)
    assert not (tmp_path / "none.png").exists()


def test_contact_sheet_draws_boxes_where_they_are(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((270, 480, 3), np.uint8))
    boxes = np.array([[100, 80, 200, 220]], np.float32)
    write_contact_sheet(tmp_path / "sheet.png", [Frame("a.jpg", tmp_path / "a.png", 1, boxes, np.array([3]))])
    lit = cv2.imread(str(tmp_path / "sheet.png"))[6:276, 6:486].max(axis=2) > 60
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    assert (columns[0], columns[-1], rows[-1]) == (100, 200, 220)
    assert 60 <= rows[0] < 80  # the identity above the box


def run(*arguments):
    return CliRunner().invoke(command, ["check", *map(str, arguments)])


def test_command_on_a_good_data_set(root, tmp_path):
    result = run(root, "--contact-sheet", tmp_path / "sheet.jpg")
    assert result.exit_code == 0
    assert "0 errors, 1 warnings." in result.output and (tmp_path / "sheet.jpg").stat().st_size > 1000
    assert {path.name for path in tmp_path.iterdir()} == {"PRW", "sheet.jpg"}


def test_command_on_a_broken_data_set(root, tmp_path):
    break_everything(root)
    result = run(root, "--contact-sheet", tmp_path / "sheet.png")
    assert result.exit_code == 1
    assert "error    frames/c1s1_000001.jpg: the image is empty (0 bytes)." in result.output
    assert "14 errors" in result.output and (tmp_path / "sheet.png").exists()
    as_json = run(root, "--json")
    assert as_json.exit_code == 1
    report = json.loads(as_json.stdout)
    assert len(report["errors"]) == 14 and report["errors"][0]["file"].startswith("frames/")
    assert report["splits"]["test"]["frames"] == 3


def test_command_refuses_what_it_cannot_check(root, tmp_path):
    assert run(tmp_path / "nowhere").exit_code == 2
    result = run(root, "--contact-sheet", tmp_path / "sheet.gif")
    assert isinstance(result.exception, UsageError)
    assert isinstance(run(tmp_path).exception, DataError)


def test_command_shortens_long_lists_of_warnings(root):
    write_matrix(root, "c1s1_000151", [[identity, -5, 5, 30, 30] for identity in range(1, 31)])
    result = run(root)
    assert result.exit_code == 0
    assert "… and 12 more warnings" in result.output  # 30 boxes, the identities shared with the test, the query


def test_errors_reach_a_person_as_one_sentence(root, tmp_path, capsys):
    assert psarm(["data", "check", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("Error: ") and message.count("\n") == 1 and "prw has frames, annotations" in message
    write_matrix(root, "c1s1_000151", np.ones((3, 4)))
    assert psarm(["data", "check", str(root)]) == 1
    assert "annotations/c1s1_000151.jpg.mat: box_new should be numbers of shape [n,5]" in capsys.readouterr().out
