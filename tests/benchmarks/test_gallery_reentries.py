"""Footage with labels, the matching of a gallery with them, and what the searches come to."""

import json

import cv2
import numpy as np
import pytest
import toy_bundle as toy
from click.testing import CliRunner

from psarm.benchmarks import gallery_reentries, reentry_gallery
from psarm.benchmarks.reentry_footage import Footage, LabelledVideo, read_one_by_one, read_pets
from psarm.benchmarks.reentry_matching import NOBODY, STRANGER, Row, Shown, match_gallery
from psarm.benchmarks.reentry_ranking import Others, judge, remaining, summarise
from psarm.benchmarks.reentry_search import mark_counts
from psarm.cli import index
from psarm.data.convert.split import Person, WrittenFrame
from psarm.errors import DataError, UsageError

RED, ORANGE = (255, 0, 0), (255, 90, 0)
LEFT, RIGHT = (0.0, 0.0, 10.0, 20.0), (50.0, 0.0, 60.0, 20.0)


def footage(*frames):
    """A video of 10 frames a second; each frame is a list of (box, identity, visit)."""
    written = [
        WrittenFrame(0, "", 100, 50, number, number / 10, tuple(Person(*person, False) for person in people))
        for number, people in enumerate(frames, start=1)
    ]
    return Footage("drawn", (LabelledVideo("clip.mkv", "door", np.arange(len(frames)) * 100_000),), tuple(written))


def row(frame, person, visit, box):
    return Row(0, frame * 100_000, person, visit, np.array(box, np.float32))


def test_rows_show_those_whose_boxes_they_overlap():
    shown = footage([(LEFT, 1, 0)], [(LEFT, 1, 0), (RIGHT, 2, 1)], [(LEFT, 1, 0), (RIGHT, -1, -1)], [], [(LEFT, 1, 2)])
    near = (1.0, 1.0, 10.0, 20.0)
    rows = [
        row(0, 0, 7, near),
        row(1, 0, 8, RIGHT),
        row(1, 1, 7, near),
        row(1, 2, 9, (2.0, 0.0, 10.0, 20.0)),  # a second row of a person shows nobody
        row(2, 0, 8, LEFT),  # another visit's number: a switch
        row(2, 1, 8, RIGHT),  # somebody without an identity
        row(3, 0, 9, LEFT),
        row(4, 0, 8, LEFT),
    ]
    matches = match_gallery(shown, rows, shown.due(None))
    key = {place: matches.rows[0, place[0] * 100_000, place[1]] for place in [(0, 0), (1, 0), (1, 2), (2, 1), (4, 0)]}
    assert key == {(0, 0): Shown(1, 0), (1, 0): Shown(2, 1), (1, 2): NOBODY, (2, 1): STRANGER, (4, 0): Shown(1, 2)}
    assert matches.visits == {7: Shown(1, 0), 8: Shown(2, 1), 9: NOBODY}  # of equals the earlier
    quality = matches.quality
    assert (quality.labelled_boxes, quality.boxes_found, quality.rows) == (6, 6, 8)
    assert (quality.labelled_visits, quality.visits_found, quality.visits, quality.visits_of_nobody) == (3, 2, 3, 1)
    assert quality.visits_per_found == 1 and quality.identity_switches == 1
    assert quality.purity == pytest.approx(3 / 5)


def test_rows_of_frames_that_were_not_due_are_refused():
    shown = footage([(LEFT, 1, 0)], [(LEFT, 1, 0)])
    with pytest.raises(DataError, match="1 frames that were not due"):
        match_gallery(shown, [row(1, 0, 0, LEFT)], shown.due(5))


@pytest.mark.parametrize(("fps", "due"), [(None, range(1, 11)), (5, [1, 3, 5, 7, 9]), (3, [1, 5, 8]), (0.5, [1])])
def test_the_first_frame_of_every_slot_is_due(fps, due):
    assert [frame.number for frame in footage(*[[]] * 10).due(fps)] == list(due)


def test_hits_are_judged_without_those_of_the_own_visit():
    """AP by hand: right at ranks 1 and 3 of the judged, two of three visits there."""
    query = Shown(1, 0)
    hits = [Shown(1, 0), Shown(1, 1), Shown(2, 5), Shown(1, 2), NOBODY, Shown(1, 0)]
    assert remaining(hits, query) == [1, 2, 3, 4]
    answer = judge(hits, query, Others(visits=3, boxes=99), by_visit=True)
    assert answer.ap == pytest.approx((1 + 2 / 3) / 2 * 2 / 3) and answer.top1 and answer.found == pytest.approx(2 / 3)
    rows = judge([Shown(2, 5), Shown(1, 1), Shown(1, 1)], query, Others(visits=1, boxes=4), by_visit=False)
    assert rows.ap == pytest.approx((1 / 2 + 2 / 3) / 2 * 2 / 4) and not rows.top1 and rows.found == 1
    nothing = judge([query], query, Others(1, 1), by_visit=True)
    assert (nothing.ap, nothing.top1, nothing.found) == (0, False, 0)
    assert summarise([answer, nothing]).mAP == pytest.approx(answer.ap / 2) and summarise([]) is None


def test_marks_are_counted():
    assert mark_counts([(True, False), (True, True), (False, True), (False, False), (False, True)]) == {
        "right": 2,
        "right_but_marked": 1,
        "wrong": 3,
        "wrong_and_marked": 2,
    }


@pytest.fixture
def folder(tmp_path):
    """Drawn footage under the names of the real one: red leaves after 8 frames and is back from frame 60 on."""
    pets, alone = tmp_path / "footage" / "pets2009_s2l1", tmp_path / "footage" / "one_by_one"
    for name in (pets, alone):
        name.mkdir(parents=True)
    scenes = [{0: RED} if number < 8 else {6: RED} if number >= 60 else {} for number in range(68)]
    scenes = [scene | ({3: ORANGE} if 2 <= number < 24 else {}) for number, scene in enumerate(scenes)]
    write_scenes(pets / "vtest.avi", scenes, "MJPG")
    lines, tracks = [], {RED: 1, ORANGE: 3}
    for number, scene in enumerate(scenes, start=1):
        for cell, colour in scene.items():
            x1, y1, x2, y2 = toy.cell_box(cell)
            track = 2 if colour == RED and number > 8 else tracks[colour]
            lines.append(f"{number},{track},{x1},{y1},{x2 - x1},{y2 - y1},1")
    (pets / "gt.txt").write_text("\n".join(lines))
    (pets / "person_ids.json").write_text(json.dumps({"track_to_person": {"1": 1, "2": 1, "3": 2}}))
    write_scenes(alone / "one-by-one-person-detection.mp4", scenes[:20], "mp4v")
    lines = [line for line in lines if int(line.split(",")[0]) <= 20]
    (alone / "labels.csv").write_text("frame,id,x,y,w,h\n" + "\n".join(line.removesuffix(",1") for line in lines))
    return tmp_path / "footage"


def write_scenes(path, scenes, codec):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (160, 96))
    for scene in scenes:
        writer.write(toy.draw_scene(scene))
    writer.release()


def test_reading_footage(folder):
    pets = read_pets(folder)
    assert (len(pets.frames), pets.people()) == (68, 2)
    [query] = pets.queries()  # orange is there once
    assert query.person.identity == 1 and pets.frames[query.frame].number <= 8
    assert pets.id_of(pets.frames[41]) == 4_100_000
    alone = read_one_by_one(folder)
    assert len(alone.frames) == 20 and not alone.queries()
    (folder / "pets2009_s2l1" / "gt.txt").unlink()
    with pytest.raises(DataError, match=r"gt\.txt is missing"):
        read_pets(folder)


def test_the_command(folder, tmp_path, toy_bundle, monkeypatch):
    """Red comes back and is found, in both galleries; the data set of psarm data synth is left out."""

    def run_here(words):
        result = CliRunner().invoke(index.command, words[1:])
        assert result.exit_code == 0, result.output

    monkeypatch.setattr(reentry_gallery, "run_psarm", run_here)
    monkeypatch.setattr(gallery_reentries, "run_psarm", lambda words: None)
    monkeypatch.setattr(gallery_reentries, "read_footage", lambda *_: [(read_pets(folder), 5.0)])
    path, work = tmp_path / "found.json", tmp_path / "work"
    options = {"--footage": folder, "--backend": "onnxruntime", "--threads": 1, "--work": work, "--json": path}
    words = [str(toy_bundle), *(str(word) for option in options.items() for word in option)]
    result = CliRunner().invoke(gallery_reentries.main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    [found] = json.loads(path.read_text())["results"]
    assert (found["footage"], found["frames"], found["due"], found["people"]) == ("pets2009_s2l1", 68, 34, 2)
    for row in found["rows"].values():
        quality, searches = row["quality"], row["searches"]
        assert quality["boxes_found"] == quality["labelled_boxes"] == quality["rows"]
        assert quality["purity"] == 1 and quality["visits_found"] == quality["labelled_visits"] == 3
        assert searches["visits"] == {"queries": 1, "mAP": 1, "top1": 1, "found_in_first_10": 1}
        assert searches["frames"]["mAP"] == 1 and "failure" in row["calibration"]  # too few visits
    assert str(folder) not in path.read_text()  # figures only
    with pytest.raises(UsageError, match="is not empty"):
        gallery_reentries.main([str(toy_bundle), "--work", str(work)], standalone_mode=False)
