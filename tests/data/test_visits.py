"""The reader of converted data sets."""

import copy

import clips
import numpy as np
import pytest

from psarm.data.readers import read_dataset
from psarm.data.visits import read_records, read_visits
from psarm.errors import DataError

DELETE = object()


def test_reads_frames_queries_and_galleries(tmp_path):
    root = clips.write_visits(tmp_path / "set")
    dataset = read_dataset("visits", root)
    assert (dataset.name, dataset.root, dataset.default_gallery, dataset.cbgm) == ("visits", root, "visits", (30, 4))
    assert [frame.name for frame in dataset.train] == ["c1s1_000001.jpg", "c1s1_000002.jpg"]
    assert [frame.name for frame in dataset.gallery] == ["c1s1_000003.jpg", "c1s1_000004.jpg"]
    first, second = dataset.train
    assert first.path == root / "images" / "c1s1_000001.jpg" and first.camera == 1
    assert first.boxes.dtype == np.float32 and first.identities.dtype == np.int64
    np.testing.assert_array_equal(first.boxes, [[1, 2.5, 11, 22.5], [2, 2.5, 12, 22.5]])
    assert first.identities.tolist() == [7, -1] and second.identities.tolist() == [900]
    assert dataset.train_labels == {7: 0, 900: 1}
    [query] = dataset.queries
    assert (query.name, query.camera, query.identity) == ("c1s1_000001.jpg", 1, 7)
    np.testing.assert_array_equal(query.box, np.float32([1, 2.5, 11, 22.5]))
    [gallery] = dataset.galleries["visits"]
    assert gallery.dtype == np.int64 and gallery.tolist() == [1]  # the third frame shows the query's own visit


def test_queries_with_the_same_gallery_share_it(tmp_path):
    annotations, [query] = clips.visits_content()
    person = annotations["annotations"][1]
    visits = [{"identity": 50 + number, "visit": 50 + number} for number in range(3)]  # in training alone
    annotations["annotations"] += [{**person, **visit} for visit in visits]
    root = clips.write_visits(tmp_path / "set", annotations, [query, *({**query, **visit} for visit in visits)])
    first, *others = read_visits(root).galleries["visits"]
    assert first.tolist() == [1] and [gallery.tolist() for gallery in others] == 3 * [[0, 1]]
    assert all(gallery is others[0] and gallery.dtype == np.int64 for gallery in others)


def test_an_image_without_people_and_a_set_without_training(tmp_path):
    annotations, queries = clips.visits_content()
    for image in annotations["images"]:
        image["split"] = "gallery"
    annotations["annotations"] = [entry for entry in annotations["annotations"] if entry["image_id"] != 2]
    dataset = read_visits(clips.write_visits(tmp_path / "set", annotations, queries))
    assert dataset.train == [] and dataset.train_labels == {}
    assert dataset.gallery[1].boxes.shape == (0, 4) and dataset.gallery[1].identities.shape == (0,)
    assert dataset.galleries["visits"][0].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("file", "place", "value", "says"),
    [
        ("a", ("images", 1), 3, "images[1]: expected an object, got number."),
        ("a", ("images", 1, "id"), 1, "images[1]: the id 1 is taken by another image."),
        ("a", ("images", 1, "id"), "two", "images[1]: id is 'two'; expected a whole number."),
        ("a", ("images", 1, "file_name"), "c1s1_000001.jpg", "images[1]: the file_name 'c1s1_000001.jpg' is listed"),
        ("a", ("images", 1, "file_name"), "./c1s1_000001.jpg", "the file_name './c1s1_000001.jpg' is listed more than"),
        ("a", ("images", 1, "file_name"), "../x.jpg", "images[1]: file_name is '../x.jpg'; expected the path of a"),
        ("a", ("images", 1, "file_name"), "none.jpg", "none.jpg is missing."),
        ("a", ("images", 1, "width"), 0, "images[1]: width is 0; expected a whole number from 1 up."),
        ("a", ("images", 1, "camera"), DELETE, "images[1]: camera is None; expected a whole number."),
        ("a", ("images", 1, "time"), "noon", "images[1]: time is 'noon'; expected seconds or null."),
        ("a", ("images", 1, "source"), 4, "images[1]: source is 4; expected the name"),
        ("a", ("images", 1, "split"), "test", "images[1]: split is 'test'; expected one of train, gallery."),
        ("a", ("annotations", 0, "image_id"), 99, "annotations[0]: image_id is 99; expected the id of an image"),
        ("a", ("annotations", 0, "category_id"), 2, "annotations[0]: category_id is 2; expected 1, a person."),
        ("a", ("annotations", 0, "bbox"), [1, 2, 3], "annotations[0]: bbox is [1, 2, 3]; expected pixels [x, y, w, h]"),
        ("a", ("annotations", 0, "bbox"), [1, 2, 0, 4], "annotations[0]: bbox is [1, 2, 0, 4]; expected"),
        ("a", ("annotations", 0, "bbox"), [1, 2, float("nan"), 4], "annotations[0]: bbox is [1, 2, nan, 4]; expected"),
        ("a", ("annotations", 0, "bbox"), [1e300, 2, 1e300, 4], "annotations[0]: bbox is [1e+300,"),
        ("a", ("annotations", 0, "bbox"), [500, 2, 1e-9, 4], "annotations[0]: bbox is [500, 2, 1e-09, 4]; expected"),
        ("a", ("annotations", 0, "identity"), -2, "annotations[0]: identity is -2; expected a whole number from -1"),
        ("a", ("annotations", 0, "identity"), True, "annotations[0]: identity is True; expected a whole number"),
        ("a", ("annotations", 0, "identity"), 1 << 70, "annotations[0]: identity is 1180591620717411303424; expected"),
        ("a", ("annotations", 0, "visit"), -1, "annotations[0]: identity is 7 and visit -1; expected both -1"),
        ("a", ("annotations", 1), {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "identity": 7, "visit": 1},
         "annotations[1]: identity 7 is in c1s1_000001.jpg already"),
        ("q", (0, "image_id"), 9, "queries[0]: image_id is 9; expected"),
        ("q", (0, "file_name"), "x.jpg", "queries[0]: file_name is 'x.jpg', but image_id 1 is 'c1s1_000001.jpg'."),
        ("q", (0, "identity"), -1, "queries[0]: identity is -1; expected a whole number from 0 up."),
        ("q", (0, "visit"), 3, "queries[0]: identity 7 on visit 3 is not annotated in c1s1_000001.jpg"),
        ("a", ("images",), DELETE, "annotations.json: images is null; expected an array."),
        ("a", ("annotations",), {}, "annotations.json: annotations is object; expected an array."),
        ("a", (), [], "annotations.json holds a JSON array; expected an object with the arrays images"),
        ("q", (), {}, "queries.json: queries is object; expected an array."),
    ],
)  # fmt: skip
def test_malformed_entries_are_named(tmp_path, file, place, value, says):
    annotations, queries = copy.deepcopy(clips.visits_content())
    if place == ():
        annotations, queries = (value, queries) if file == "a" else (annotations, value)
    else:
        *way, last = place
        entry = annotations if file == "a" else queries
        for key in way:
            entry = entry[key]
        if value is DELETE:
            del entry[last]
        else:
            entry[last] = value
    root = clips.write_visits(tmp_path / "set", annotations, queries)
    with pytest.raises(DataError) as error:
        read_visits(root)
    assert str(error.value).startswith(str(root / ("annotations.json" if file == "a" else "queries.json")))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not valid JSON (Expecting value at line 1, column 1)"),
        (b'{"images": [', "is not valid JSON"),
        (b"\xff\xfe\x00", "is not a text file"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[" + b"9" * 5000 + b"]", "cannot be read as JSON"),
    ],
)
def test_a_file_that_is_no_json(tmp_path, content, says):
    root = clips.write_visits(tmp_path / "set")
    (root / "annotations.json").write_bytes(content)
    with pytest.raises(DataError, match="expected an object with the arrays images and annotations") as error:
        read_visits(root)
    assert says in str(error.value)


def test_a_folder_that_is_something_else(tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a directory; pass a folder that `psarm data convert` wrote."):
        read_visits(tmp_path / "nowhere")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"not a converted data set: annotations\.json, queries\.json not found in it"):
        read_visits(tmp_path)


def test_records_keep_what_can_be_used_and_name_all_the_rest(tmp_path):
    annotations, queries = copy.deepcopy(clips.visits_content())
    annotations["images"][3]["width"] = -1
    annotations["annotations"][0]["bbox"] = "large"
    root = clips.write_visits(tmp_path / "set", annotations, queries)
    records = read_records(root)
    assert [image.id for image in records.images] == [1, 2, 3]
    assert [person.identity for person in records.boxes[1]] == [-1]
    assert records.queries == [] and records.galleries() == []
    files = [(problem.path.name, problem.message.partition(":")[0]) for problem in records.problems]
    assert files == [
        ("annotations.json", "images[3]"),
        ("annotations.json", "annotations[0]"),
        ("annotations.json", "annotations[4]"),
        ("annotations.json", "annotations[5]"),
        ("queries.json", "queries[0]"),
    ]
    with pytest.raises(DataError, match=r"4 more problems: psarm data check"):
        read_visits(root)
