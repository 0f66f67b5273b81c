"""Real footage, where it lies beside the checkout: PETS 2009 S2.L1 and six people who walk in one at a time."""

import json
from pathlib import Path

import clips
import cv2
import numpy as np
import pytest

from psarm.data.convert import ConvertSettings, MotClip, convert_mot
from psarm.data.visits import read_visits
from psarm.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
PETS, ONE_BY_ONE = SHARED / "pets2009_s2l1", SHARED / "one_by_one"

needs_footage = pytest.mark.skipif(
    not (PETS / "vtest.avi").is_file() or not (ONE_BY_ONE / "labels.csv").is_file(),
    reason="real footage (PETS 2009 S2.L1, one-by-one) is not in ../shared/data",
)


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Every twentieth frame of PETS, and its summary."""
    out = tmp_path_factory.mktemp("pets") / "set"
    clip = MotClip(PETS / "vtest.avi", 1, PETS / "gt.txt", PETS / "person_ids.json")
    return out, convert_mot(out, [clip], ConvertSettings(every=20))


@needs_footage
def test_pets_figures(pets):
    _, summary = pets
    assert (summary.total.visits, summary.total.people, summary.returning, summary.total.queries) == (19, 10, 7, 7)
    assert (summary.total.frames, summary.total.train_frames, summary.total.gallery_frames) == (40, 24, 16)
    rows = [line.split(",") for line in (PETS / "gt.txt").read_text().split()]
    kept = [row for row in rows if int(row[0]) % 20 == 1 and row[6] != "0"]
    assert summary.total.boxes == len(kept) and summary.dropped["conf 0"] == sum(row[6] == "0" for row in rows)


@needs_footage
def test_pets_queries_are_first_visits_seen_whole_and_alone(pets):
    out, _ = pets
    dataset = read_visits(out)
    visits = json.loads((PETS / "person_ids.json").read_text())["visits"]
    for query, gallery in zip(dataset.queries, dataset.galleries["visits"], strict=True):
        first, *later = sorted((v["first_frame"], v["last_frame"]) for v in visits if v["person"] == query.identity)
        assert later and first[0] <= int(query.name[5:11]) <= first[1]
        searched = [dataset.gallery[index] for index in gallery]
        numbers = [int(frame.name[5:11]) for frame in searched]
        assert all(number > first[1] for number in numbers) and len(set(numbers)) == len(numbers)
        assert any(query.identity in frame.identities for frame in searched)
        assert query.box.min() > 0 and query.box[2] < 768 and query.box[3] < 576
        assert cv2.imread(str(query.path)).shape == (576, 768, 3)


@needs_footage
def test_nobody_returns_in_one_by_one(tmp_path):
    video = next(ONE_BY_ONE.glob("*.mp4"))
    clip = MotClip(video, 1, ONE_BY_ONE / "labels.csv")
    with pytest.raises(DataError, match="None of the 6 people comes back for a second visit"):
        convert_mot(tmp_path / "set", [clip], ConvertSettings())
    assert list(tmp_path.iterdir()) == []


@needs_footage
def test_labels_fit_the_pictures_of_one_by_one(tmp_path):
    """The people of the clip were found by background subtraction: inside boxes, pixels differ from an empty frame."""
    header, *rows = (line.split(",") for line in (ONE_BY_ONE / "labels.csv").read_text().split())
    assert header == ["frame", "id", "x", "y", "w", "h"]
    # Let people's time in every second hundred frames be another visit, so that there is somebody to search for.
    rows = [(frame, 2 * int(person) + int(frame) // 100 % 2, *box) for frame, person, *box in rows]
    labels = clips.write_labels(tmp_path / "gt.txt", rows)
    people = clips.write_json(tmp_path / "people.json", {str(track): track // 2 for track in range(2, 14)})
    out = tmp_path / "set"
    clip = MotClip(next(ONE_BY_ONE.glob("*.mp4")), 1, labels, people)
    convert_mot(out, [clip], ConvertSettings(every=33, train_fraction=0))
    dataset = read_visits(out)
    empty = cv2.imread(str(dataset.gallery[0].path)).astype(np.float32)
    inside, outside = [], []
    for frame in dataset.gallery:
        difference = np.abs(cv2.imread(str(frame.path)) - empty).mean(axis=2)
        mask = np.zeros(difference.shape, bool)
        for x1, y1, x2, y2 in frame.boxes.astype(int):
            mask[y1:y2, x1:x2] = True
        if mask.any():
            inside.append(difference[mask].mean())
            outside.append(difference[~mask].mean())
    assert len(inside) > 20 and np.mean(inside) > 3 * np.mean(outside)
