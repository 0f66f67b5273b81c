"""`psarm data check` on the layouts beside PRW, and telling them apart."""

import json

import cv2
import numpy as np
import pytest
from clips import visits_content, write_json, write_visits
from cuhk_disk import BOXES, LISTS, POOL, TEST, write_cuhk, write_images, write_pool, write_protocol, write_train
from prw_files import write_prw

from psarm.cli import run
from psarm.data.check_cuhk_sysu import check_cuhk_sysu
from psarm.data.check_visits import check_visits
from psarm.data.cuhk_sysu import read_cuhk_sysu
from psarm.data.layouts import LAYOUTS, recognise
from psarm.data.readers import READERS
from psarm.data.visits import read_visits
from psarm.errors import DataError, UsageError

WRITERS = {"prw": write_prw, "cuhk-sysu": write_cuhk, "visits": write_visits}


@pytest.fixture
def root(tmp_path):
    root = write_cuhk(tmp_path / "CUHK-SYSU")
    good = {name: [box for box in own if box[2] > 0] for name, own in BOXES.items()}
    good["s7.jpg"] = good["s7.jpg"][:1]
    write_images(root, good)
    return root


def found(findings):
    return {(finding.file, finding.message) for finding in findings}


def same_frames(ours, theirs):
    assert [frame.name for frame in ours] == [frame.name for frame in theirs]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes, strict=True)
        np.testing.assert_array_equal(a.identities, b.identities, strict=True)


def test_a_good_cuhk_sysu_has_no_findings(root):
    report, dataset = check_cuhk_sysu(root), read_cuhk_sysu(root)
    assert report.errors == [] and report.warnings == []
    same_frames(report.train, dataset.train)
    same_frames(report.gallery, dataset.gallery)
    assert {name: [rows.tolist() for rows in lists] for name, lists in report.galleries.items()} == {
        name: [rows.tolist() for rows in lists] for name, lists in dataset.galleries.items()
    }
    statistics = report.to_dict()
    assert statistics["dataset"] == "cuhk-sysu" and statistics["galleries"] == {"50": [2, 2], "100": [2, 3]}
    assert statistics["splits"]["test"] == {"frames": 4, "boxes": 6, "unlabelled": 2, "identities": 2}
    assert statistics["queries"]["queries"] == 2 and statistics["queries"]["without_match"] == 0


def test_every_broken_file_of_cuhk_sysu_is_named(root):
    pictures = root / "Image/SSM"
    (pictures / "s3.jpg").unlink()
    (pictures / "s4.jpg").write_bytes(b"")
    (pictures / "s99.jpg").write_bytes((pictures / "s1.jpg").read_bytes())
    write_images(root, BOXES | {"s5.jpg": [[30, 3, 25, 50], [500, 5, 9, 9], [5.5, 5, 0.5, 9]]})
    write_pool(root, [*POOL, "s55.jpg"])
    people = [
        ("p21", [("s2.jpg", [10, 20, 30, 40]), ("s3.jpg", [1, 2, 3, 4])]),
        ("p22", [("s2.jpg", [10, 20, 30, 40]), ("s2.jpg", [60, 5, 20, 50])]),
        ("p7", [("s3.jpg", [12, 20, 30, 40]), ("s5.jpg", [30, 3, 25, 50])]),
    ]
    write_train(root, people)
    p7, p900 = TEST
    gallery = [*p7[2], ("s1.jpg", None), ("s5.jpg", None)]
    write_protocol(root, 100, [("p7", p7[1], gallery), ("p900", p900[1], [("s7.jpg", None), ("s4.jpg", None)])])
    (root / LISTS / "TestG500.mat").write_bytes(b"x" * 200)
    report = check_cuhk_sysu(root)
    size = "120x90"
    images, train, protocol = "annotation/Images.mat", f"{LISTS}/Train.mat", f"{LISTS}/TestG100.mat"
    assert found(report.errors) == {
        ("Image/SSM/s3.jpg", "the image is missing."),
        ("Image/SSM/s4.jpg", "the image is empty (0 bytes)."),
        (images, f"s5.jpg: the box x 500, y 5, w 9, h 9 lies wholly outside the {size} image."),
        ("annotation/pool.mat", "s55.jpg is not in Images.mat."),
        (f"{LISTS}/TestG500.mat", "expected a MATLAB 5 file (little-endian), but it is none."),
    }
    assert {
        ("Image/SSM/s99.jpg", "the image is not in Images.mat."),
        (images, "s5.jpg: the box x 5.5, y 5, w 0.5, h 9 has no area in whole pixels; it is left out."),
        (images, "s2.jpg: the box x 5, y 5, w 0, h 9 has no area in whole pixels; it is left out."),
        (images, "identity 22 appears 2 times in s2.jpg."),
        (
            train,
            "p21's box x 1, y 2, w 3, h 4 in s3.jpg is not among the boxes of Images.mat; it gives nobody an identity.",
        ),
        (train, "p7's box x 30, y 3, w 25, h 50 in s5.jpg is in an image of the gallery (pool.mat); it is left out."),
        (protocol, "query 1 (identity 900 in s4.jpg): nowhere in its gallery, so never found."),
        (train, "p22's box x 10, y 20, w 30, h 40 in s2.jpg is p21's too; the last one counts."),
        (
            protocol,
            "in training and test frames alike: 1 identities (7); test people should be unseen.",
        ),
        (protocol, "query 0 (p7): its gallery lists an image more than once."),
        (protocol, "query 0 (p7): its own image s1.jpg is in its gallery."),
        (protocol, "query 1 (p900): its own image s4.jpg is in its gallery."),
    } <= found(report.warnings)
    hidden = "query 1 (p900): the person is in s7.jpg too, but that image's entry in the gallery has no box."
    assert (protocol, hidden) in found(report.warnings)


@pytest.mark.parametrize(
    "name", ["annotation/pool.mat", f"{LISTS}/Train.mat", f"{LISTS}/TestG100.mat", f"{LISTS}/TestG50.mat"]
)
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_broken_list_does_not_stop_the_check(root, name, damage):
    (root / "Image/SSM/s1.jpg").write_bytes(b"")
    path = root / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-60])
    else:
        path.unlink()
    errors = {file for file, _ in found(check_cuhk_sysu(root).errors)}
    wanted = set() if (damage, name) == ("gone", f"{LISTS}/TestG50.mat") else {name}
    assert errors == wanted | {"Image/SSM/s1.jpg"}


def test_broken_images_mat_still_has_the_pictures_checked(root):
    (root / "annotation/Images.mat").write_bytes(b"")
    (root / "Image/SSM/s1.jpg").write_bytes(b"")
    report = check_cuhk_sysu(root)
    assert {file for file, _ in found(report.errors)} == {"annotation/Images.mat", "Image/SSM/s1.jpg"}
    assert report.train == [] and report.statistics.image_sizes == {"120x90": 6}


def test_protocols_with_other_queries_are_named(root):
    write_protocol(root, 50, TEST[::-1])
    [error] = check_cuhk_sysu(root).errors
    assert error.file == f"{LISTS}/TestG50.mat" and "query 0 is p900" in error.message


def test_queries_are_looked_for_in_their_default_gallery(root):
    p7, p900 = TEST
    people = [("s4.jpg", [40, 10, 25, 50]), ("s5.jpg", [30, 3, 25, 50])]
    everywhere = [("p7", p7[1], people), ("p900", p900[1], p900[2])]
    write_protocol(root, 50, [("p7", p7[1], [("s7.jpg", None)]), ("p900", p900[1], [("s1.jpg", None)])])
    write_protocol(root, 100, everywhere)
    report = check_cuhk_sysu(root)
    assert report.errors == [] and report.warnings == []
    assert report.statistics.queries.gallery_frames[0] == 1 and report.statistics.queries.gallery_frames[-1] == 2
    write_protocol(root, 100, [("p7", p7[1], [("s7.jpg", None)]), ("p900", p900[1], p900[2])])
    write_protocol(root, 500, everywhere)
    report = check_cuhk_sysu(root)
    nowhere = "query 0 (identity 7 in s1.jpg): nowhere in its gallery, so never found."
    assert found(report.warnings) == {(f"{LISTS}/TestG100.mat", nowhere)}
    assert report.statistics.queries.gallery_frames[0] == 0 and report.statistics.queries.without_match == 1


def test_frames_of_a_converted_query_are_those_of_its_gallery(tmp_path):
    root = write_visits(tmp_path / "visits")
    report, dataset = check_visits(root), read_visits(root)
    [query], [rows] = dataset.queries, dataset.galleries["visits"]
    shown = [row for row in rows if query.identity in dataset.gallery[row].identities]
    assert report.statistics.queries.gallery_frames == [len(shown)] * 7
    everywhere = [f for f in dataset.gallery if query.identity in f.identities and f.name != query.name]
    assert len(shown) < len(everywhere)


def test_other_folders_are_no_cuhk_sysu(tmp_path):
    with pytest.raises(DataError, match="not a CUHK-SYSU data set: Image/SSM/"):
        check_cuhk_sysu(tmp_path)


def test_a_good_converted_data_set_has_no_findings(tmp_path):
    root = write_visits(tmp_path / "visits")
    report, dataset = check_visits(root), read_visits(root)
    assert report.errors == [] and report.warnings == []
    same_frames(report.train, dataset.train)
    same_frames(report.gallery, dataset.gallery)
    assert report.to_dict()["galleries"] == {"visits": [1, 1]}


def test_every_broken_file_of_a_converted_data_set_is_named(tmp_path):
    content, queries = visits_content()
    content["annotations"][0]["bbox"] = [100, 2, 10, 20]
    content["annotations"][1]["bbox"] = [-4, 2, 10, 20]
    content["annotations"][2]["identity"] = "Anna"
    root = write_visits(tmp_path / "visits", content, queries)
    cv2.imwrite(str(root / "images/c1s1_000002.jpg"), np.zeros((9, 9, 3), np.uint8))
    (root / "images/c1s1_000003.jpg").write_bytes(b"")
    (root / "images/c1s1_000004.jpg").unlink()
    report = check_visits(root)
    errors = found(report.errors)
    assert {
        ("images/c1s1_000003.jpg", "the image is empty (0 bytes)."),
        ("annotations.json", "c1s1_000002.jpg is said to be 64x48, but it is 9x9."),
        (
            "annotations.json",
            "c1s1_000001.jpg: the box x 100, y 2, w 10, h 20 lies wholly outside the 64x48 image.",
        ),
    } <= errors
    assert any("c1s1_000004.jpg is missing" in message for _, message in errors)
    assert any("identity is 'Anna'" in message for _, message in errors)
    outside = "c1s1_000001.jpg: the box x -4, y 2, w 10, h 20 reaches 4 pixels outside the 64x48 image."
    nowhere = "query 0 (identity 7 in c1s1_000001.jpg): nowhere in its gallery, so never found."
    assert found(report.warnings) == {("annotations.json", outside), ("queries.json", nowhere)}


@pytest.mark.parametrize("name", WRITERS)
def test_the_layout_is_told_from_the_folder(name, tmp_path, capsys):
    root = WRITERS[name](tmp_path / "data")
    assert recognise(root) == name
    assert run(["data", "check", str(root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dataset"] == name and report["errors"] == []
    assert run(["data", "check", str(root), "--dataset", name, "--contact-sheet", str(tmp_path / "sheet.jpg")]) == 0
    assert "0 errors" in capsys.readouterr().out and (tmp_path / "sheet.jpg").stat().st_size > 1000
    assert READERS[name](root).name == name


def test_folders_that_hold_nothing_or_several(tmp_path, capsys):
    assert set(LAYOUTS) == set(READERS)
    with pytest.raises(DataError, match=r"holds no data set .*prw has frames.*cuhk-sysu has Image/SSM.*visits has"):
        recognise(tmp_path)
    write_prw(tmp_path)
    write_json(tmp_path / "annotations.json", {})
    with pytest.raises(UsageError, match="has files of prw and visits; say which to check with --dataset"):
        recognise(tmp_path)
    assert run(["data", "check", str(tmp_path)]) == 2
    assert run(["data", "check", str(tmp_path), "--dataset", "prw"]) == 0
    assert run(["data", "check", str(tmp_path), "--dataset", "cuhk-sysu"]) == 1
    assert "not a CUHK-SYSU data set" in capsys.readouterr().err


def test_command_on_a_broken_cuhk_sysu(root, capsys):
    (root / "Image/SSM/s1.jpg").write_bytes(b"")
    assert run(["data", "check", str(root)]) == 1
    printed = capsys.readouterr().out
    assert "error    Image/SSM/s1.jpg: the image is empty (0 bytes)." in printed
    assert "Gallery 50: 2 frames for a query." in printed and "Gallery 100: 2 to 3 frames for a query." in printed
