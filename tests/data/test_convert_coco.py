"""COCO labels with an identity attribute: what they become, and every way they can be wrong."""

import json

import clips
import numpy as np
import pytest

from psarm.data.convert import CocoLabels, ConvertSettings, convert_coco
from psarm.data.visits import read_visits
from psarm.errors import DataError, UsageError

DELETE = object()


def convert(tmp_path, content=None, settings=None, overwrite=False, **options):
    if not (tmp_path / "in").exists():
        clips.write_coco(tmp_path / "in", content)
    data = CocoLabels(tmp_path / "in" / "labels.json", tmp_path / "in" / "pictures", "person_id", **options)
    settings = ConvertSettings(visit_gap=1) if settings is None else settings
    return convert_coco(tmp_path / "out", data, settings, overwrite=overwrite)


def failing(tmp_path, content=None, settings=None, kind=DataError, **options):
    with pytest.raises(kind) as error:
        convert(tmp_path, content, settings, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    return str(error.value)


def test_gap_between_visits(tmp_path):
    summary = convert(tmp_path)
    assert (summary.total.people, summary.total.visits, summary.total.boxes) == (2, 3, 10)
    dataset = read_visits(tmp_path / "out")
    assert [frame.name for frame in dataset.train] == [f"f{number}.jpg" for number in (1, 2, 3, 4)]
    [query] = dataset.queries
    assert (query.name, query.identity) == ("f1.jpg", 7)
    np.testing.assert_array_equal(query.box, [10, 10, 18, 30])
    assert dataset.galleries["visits"][0].tolist() == [0, 1]
    copied, given = (tmp_path / folder / "f3.jpg" for folder in ("out/images", "in/pictures"))
    assert copied.read_bytes() == given.read_bytes() and not copied.is_symlink()


def test_default_gap_is_thirty_pictures(tmp_path):
    said = failing(tmp_path, settings=ConvertSettings())
    assert said.startswith("None of the 2 people comes back") and "--visit-attribute" in said


def test_visit_attribute(tmp_path):
    settings = ConvertSettings(train_fraction=0)
    summary = convert(tmp_path, settings=settings, visit_attribute="track_id")
    assert (summary.total.visits, summary.total.queries) == (4, 2)  # person 9's track changes, too
    with pytest.raises(UsageError, match="give one of them"):
        convert(tmp_path, settings=ConvertSettings(visit_gap=3), overwrite=True, visit_attribute="track_id")


def test_visit_attributes_follow_the_numbers_rule_of_identities(tmp_path):
    content = clips.coco_content()
    forms = [int, float, str, "{}.".format]
    for row, entry in enumerate(content["annotations"]):
        number = entry["attributes"]["track_id"]
        entry["attributes"]["track_id"] = forms[row % 3](number)
        entry["attributes"]["tour"] = forms[3](number)  # no number, a text
        entry["attributes"]["person_id"] = forms[row % 3](entry["attributes"]["person_id"])
    settings = ConvertSettings(train_fraction=0)
    for attribute in ("track_id", "tour"):
        summary = convert(tmp_path, content, settings, overwrite=True, visit_attribute=attribute)
        assert (summary.total.people, summary.total.visits, summary.total.queries) == (2, 4, 2)
    content["annotations"][0]["attributes"]["track_id"] = 1.5
    clips.write_json(tmp_path / "in" / "labels.json", content)
    with pytest.raises(DataError, match=r"annotations\[0\]: track_id is 1\.5; expected a whole number or a text"):
        convert(tmp_path, settings=settings, overwrite=True, visit_attribute="track_id")


@pytest.mark.parametrize("link", [False, True])
def test_names_are_paths(tmp_path, link):
    content = clips.coco_content()
    content["images"][0]["file_name"] = ".//f1.jpg"
    convert(tmp_path, content, ConvertSettings(visit_gap=1, link=link))
    assert read_visits(tmp_path / "out").train[0].name == "f1.jpg"


@pytest.mark.parametrize(
    ("value", "kept"), [(0, 1), ("0", 1), (0.0, 1), (False, 1), (None, 1), (1, 0), ("1", 0), (True, 0)]
)
def test_crowds(tmp_path, value, kept):
    content = clips.coco_content()
    content["annotations"][4]["iscrowd"] = value
    assert convert(tmp_path, content).total.boxes == 9 + kept


def test_attributes_of_the_entry_itself_and_links(tmp_path):
    content = clips.coco_content()
    for entry in content["annotations"]:
        entry["person_id"] = str(entry.pop("attributes")["person_id"])
    del content["categories"]
    convert(tmp_path, content, ConvertSettings(visit_gap=1, link=True))
    picture = tmp_path / "out" / "images" / "f1.jpg"
    assert picture.is_symlink() and picture.resolve() == (tmp_path / "in" / "pictures" / "f1.jpg").resolve()
    read_visits(tmp_path / "out")


def test_order_is_by_frame_attribute_then_by_numbers_in_names(tmp_path):
    content = clips.coco_content()
    # f1 … f6 become the frames 60, 50, …, 10: the last is the first.
    for number, image in enumerate(content["images"], start=1):
        image["attributes"] = {"frame": 70 - 10 * number}
    convert(tmp_path, content)
    images = json.loads((tmp_path / "out" / "annotations.json").read_text())["images"]
    assert [(image["file_name"], image["frame"]) for image in images][:2] == [("f6.jpg", 10), ("f5.jpg", 20)]
    assert read_visits(tmp_path / "out").queries[0].name == "f6.jpg"


def test_names_are_ordered_by_their_numbers(tmp_path):
    content = clips.coco_content()
    clips.write_coco(tmp_path / "in", content)
    for number, image in enumerate(content["images"], start=1):
        image["file_name"] = f"sub/f{2 * number}.jpg"
        target = tmp_path / "in" / "pictures" / image["file_name"]
        target.parent.mkdir(exist_ok=True)
        (tmp_path / "in" / "pictures" / f"f{number}.jpg").rename(target)
    clips.write_json(tmp_path / "in" / "labels.json", content)
    convert(tmp_path)
    images = json.loads((tmp_path / "out" / "annotations.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"sub/f{n}.jpg" for n in (2, 4, 6, 8, 10, 12)]
    assert [image["frame"] for image in images] == [1, 2, 3, 4, 5, 6]
    read_visits(tmp_path / "out")


def test_cameras(tmp_path):
    content = clips.coco_content()
    for number, image in enumerate(content["images"], start=1):
        image["attributes"] = {"cam": 3 if number < 4 else "8", "frame_id": (number - 1) % 3}
    summary = convert(tmp_path, content, camera_attribute="cam")
    assert {camera: counts.frames for camera, counts in summary.cameras.items()} == {3: 3, 8: 3}
    # Everybody is on a visit before each camera; both cameras' first frames count as the same time.
    assert summary.total.visits == 4 and summary.returning == 2
    dataset = read_visits(tmp_path / "out")
    assert [frame.camera for frame in dataset.gallery] == [3, 8]
    assert [(query.identity, query.camera) for query in dataset.queries] == [(7, 3), (9, 3)]


def test_what_is_left_out_is_counted(tmp_path):
    content = clips.coco_content()
    extra = {"image_id": 10, "iscrowd": 0, "bbox": [1, 1, 5, 5], "category_id": 3}
    content["categories"].append({"id": 4, "name": "car"})
    content["annotations"] += [
        {**extra, "category_id": 4},
        {**extra, "iscrowd": 1},
        {**extra, "bbox": [-10, 0, 10.5, 9], "attributes": {"person_id": 1}},
        {**extra, "bbox": [1, 1, 0, 9], "attributes": {"person_id": 2}},
        {**extra, "attributes": {"person_id": None}},
        {**extra, "attributes": {"person_id": -1}},
    ]
    summary = convert(tmp_path, content)
    assert summary.dropped == {"category other than people": 1, "iscrowd": 1, "no area inside the picture": 2}
    assert summary.total.unlabelled == 2 and summary.total.people == 2
    assert read_visits(tmp_path / "out").train[0].identities.tolist() == [9, 7, -1, -1]


def test_categories(tmp_path):
    content = clips.coco_content()
    content["categories"] = [{"id": 3, "name": "Hiker"}]
    convert(tmp_path, content)
    content["categories"].append({"id": 4, "name": "car"})
    clips.write_json(tmp_path / "in" / "labels.json", content)
    with pytest.raises(DataError, match=r"no category is named person or people or pedestrian; give .*: Hiker, car"):
        convert(tmp_path, overwrite=True)
    assert convert(tmp_path, overwrite=True, category="hiker").total.boxes == 10
    with pytest.raises(DataError, match="no category is named walker"):
        convert(tmp_path, overwrite=True, category="walker")


def replace(content, place, value):
    *way, last = place
    for key in way:
        content = content[key]
    if value is DELETE:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("images",), DELETE, "images is null; expected an array."),
        (("images",), [], "images is empty; there is nothing to convert."),
        (("annotations",), [], "annotations is empty; there is nothing to convert."),
        (("annotations", 1), "x", "annotations[1] is string; expected an object."),
        (("images", 1, "id"), 10, "images[1]: the id is 10; expected a whole number that no other image has."),
        (("images", 1, "id"), DELETE, "images[1]: the id is None; expected"),
        (("images", 1, "file_name"), "/etc/passwd", "images[1]: file_name is '/etc/passwd'; expected the path of a"),
        (("images", 1, "file_name"), "f1.jpg", "images[1]: the file_name 'f1.jpg' is listed more than once."),
        (("images", 1, "file_name"), "./f1.jpg", "images[1]: the file_name 'f1.jpg' is listed more than once."),
        (("images", 1, "file_name"), "no.jpg", "no.jpg is missing; give its folder with --images."),
        (("images", 1, "width"), 640, "f2.jpg is 64x48 pixels, but its labels are for 640x48; give the pictures that"),
        (("images", 1, "frame_id"), 3, "f1.jpg has no frame_id or frame, and other images have; expected all or none"),
        (("images", 1, "frame"), "x", "images[1]: frame is 'x'; expected a whole number."),
        (("categories",), {}, "categories is object; expected an array of objects."),
        (("categories", 0, "id"), [3], "categories[0]: the id is [3]; expected a whole number."),
        (("annotations", 0, "image_id"), 11, "annotations[0]: image_id is 11; expected the id of one of the images."),
        (("annotations", 0, "iscrowd"), "no", "annotations[0]: iscrowd is 'no'; expected 0 or 1."),
        (("annotations", 0, "iscrowd"), 2, "annotations[0]: iscrowd is 2; expected 0 or 1."),
        (("annotations", 0, "bbox"), [1, 2, 3], "annotations[0]: bbox is [1, 2, 3]; expected four numbers"),
        (("annotations", 0, "bbox", 1), None, "annotations[0]: bbox is [30, None, 10, 22]; expected four numbers"),
        (("annotations", 0, "attributes"), DELETE, "annotations[0] has no attribute 'person_id'; it has id, image_id,"),
        (("annotations", 0, "attributes", "person_id"), DELETE, "'person_id'; it has id, image_id, category_id"),
        (("annotations", 0, "attributes", "person_id"), "anna", "annotations[0]: person_id is 'anna'; expected"),
        (("annotations", 0, "attributes", "person_id"), -5, "annotations[0]: person_id is -5; expected a whole number"),
        (("annotations", 0, "attributes", "person_id"), 7, "annotations[1]: person 7 is in f1.jpg already"),
    ],
)  # fmt: skip
def test_malformed_labels(tmp_path, place, value, says):
    content = clips.coco_content()
    replace(content, place, value)
    said = failing(tmp_path, content)
    assert says in said
    assert said.startswith(str(tmp_path / "in"))


def test_frames_and_cameras_that_cannot_be_meant(tmp_path):
    content = clips.coco_content()
    for image in content["images"]:
        image["frame_id"] = 1
    said = failing(tmp_path, content)
    assert "f1.jpg and f2.jpg are both frame 1 of camera 1; name the attribute that tells cameras apart" in said
    assert "images[0] has no attribute 'cam'; it has id, file_name" in failing(tmp_path, camera_attribute="cam")


def test_a_visit_attribute_that_is_missing_or_no_value(tmp_path):
    content = clips.coco_content()
    content["annotations"][0]["attributes"]["list"] = []
    settings = ConvertSettings()
    said = failing(tmp_path, content, settings, visit_attribute="tour")
    assert "annotations[0] has no attribute 'tour'" in said and "attributes: track_id" in said
    said = failing(tmp_path, settings=settings, visit_attribute="list")
    assert "annotations[0]: list is []; expected a whole number or a text." in said


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"{", "is not valid JSON"), (b"[]", "holds a JSON array; expected a COCO file"), (b"\xff", "is not a text file")],
)
def test_labels_that_are_no_json(tmp_path, content, says):
    labels, _ = clips.write_coco(tmp_path / "in")
    labels.write_bytes(content)
    assert says in failing(tmp_path)


def test_a_damaged_picture(tmp_path):
    _, pictures = clips.write_coco(tmp_path / "in")
    (pictures / "f5.jpg").write_bytes(b"not a picture")
    assert failing(tmp_path) == f"{pictures / 'f5.jpg'}: the image cannot be decoded; it is damaged or no picture."
