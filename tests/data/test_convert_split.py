"""Whole conversions of random tracks against the rules read literally."""

import json
import math

import clips
import cv2
import numpy as np
import pytest

from psarm.data.convert import ConvertSettings, MotClip, convert_mot
from psarm.data.visits import read_visits
from psarm.errors import DataError

FRAMES, FRAME_RATE = 24, 10


def random_rows(rng):
    """Rows of one clip: tracks with holes; boxes of whole numbers that reach outside and sometimes lie outside."""
    rows = []
    for track in rng.choice(1000, size=int(rng.integers(3, 8)), replace=False):
        begin, length = int(rng.integers(1, FRAMES)), int(rng.integers(1, 12))
        x, y = (int(value) for value in rng.integers(-15, [clips.WIDTH, clips.HEIGHT]))
        for frame in range(begin, min(begin + length, FRAMES + 1)):
            if rng.random() < 0.75:
                w, h = (int(value) for value in rng.integers(0, 30, 2))
                rows.append((frame, int(track), x, y, w, h))
    return rows


def merge(rng, rows):
    """Track → person, such that nobody is in a frame twice; some people are unknown."""
    people, frames_of = {}, {}
    for track in sorted({row[1] for row in rows}):
        frames = {row[0] for row in rows if row[1] == track}
        options = [p for p in (3, 50, 51, 700) if not frames & frames_of.get(p, set())]
        people[track] = int(rng.choice(options)) if options and rng.random() < 0.9 else -1
        if people[track] != -1:
            frames_of.setdefault(people[track], set()).update(frames)
    return people


def literal_visits(rows, people, gap):
    """(frame, track) → a name of the visit within the clip."""
    if gap is None:
        return {(row[0], row[1]): row[1] for row in rows}
    names = {}
    for person in set(people.values()):
        own = sorted((row[0], row[1]) for row in rows if people[row[1]] == person)
        count = 0
        for index, (frame, track) in enumerate(own):
            if index and len(range(own[index - 1][0] + 1, frame)) > gap:
                count += 1
            names[frame, track] = (person, count)
    return names


def literal(rows_of, people_of, starts, every, fraction, gap):
    """Frame name → list of (box, identity, visit, cut off), in writing order, and the names of the training frames."""
    frames, train, begins = {}, set(), {}
    for clip, (rows, people) in enumerate(zip(rows_of, people_of, strict=True)):
        visits = literal_visits(rows, people, gap)
        kept = list(range(1, FRAMES + 1, every))
        names = [f"c{clip + 1}s1_{frame:06d}.jpg" for frame in kept]
        train |= set(names[: math.floor(fraction * len(kept) + 0.5)])
        for frame, name in zip(kept, names, strict=True):
            frames[name] = []
            for number, track, x, y, w, h in rows:
                if number != frame:
                    continue
                box = (max(x, 0), max(y, 0), min(x + w, clips.WIDTH), min(y + h, clips.HEIGHT))
                if box[2] - box[0] < 1 or box[3] - box[1] < 1:
                    continue
                cut_off = x <= 0 or y <= 0 or x + w >= clips.WIDTH or y + h >= clips.HEIGHT
                person = people[track]
                visit = None if person == -1 else (clip, visits[frame, track])
                frames[name].append((box, person, visit, cut_off))
                if visit is not None:
                    when = starts[clip] + (frame - 1) / FRAME_RATE
                    begins[person, visit] = min(begins.get((person, visit), (math.inf, 0)), (when, clip))
    return frames, train, begins


def pixels(box):
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


def literal_queries(frames, train, begins):
    """Identity → (frame name, box, names of its gallery)."""
    queries = {}
    for person in {person for person, _ in begins}:
        first = min((visit for who, visit in begins if who == person), key=lambda visit: begins[person, visit])
        options = []
        later = False
        for order, (name, boxes) in enumerate(frames.items()):
            for box, who, visit, cut_off in boxes:
                if who == person and visit != first and name not in train:
                    later = True
                if who == person and visit == first:
                    area = len(pixels(box))
                    others = [other for other, identity, *_ in boxes if (other, identity) != (box, who)]
                    covered = max([len(pixels(box) & pixels(other)) for other in others], default=0)
                    options.append((cut_off, 10 * covered // area, -area, order, name, box))
        if later:
            *_, name, box = min(options)
            shown = {n for n, boxes in frames.items() if any(b[1] == person and b[2] == first for b in boxes)}
            queries[person] = name, box, [n for n in frames if n not in train and n not in shown]
    return queries


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [clips.write_video(folder / f"clip{number}.avi", FRAMES, FRAME_RATE) for number in (1, 2)]


@pytest.mark.parametrize("seed", range(24))
def test_random_tracks(tmp_path, videos, seed):
    rng = np.random.default_rng(seed)
    every, gap = int(rng.integers(1, 4)), (None, 0, 2, 5)[seed % 4]
    fraction = float(rng.choice([0.0, 0.3, 0.6]))
    starts = [0.0, float(rng.choice([-1.0, 0.0, 0.85]))]
    rows_of = [random_rows(rng) for _ in videos]
    people_of = [merge(rng, rows) for rows in rows_of]
    frames, train, begins = literal(rows_of, people_of, starts, every, fraction, gap)
    expected = literal_queries(frames, train, begins)
    inputs = []
    for number, (video, rows, people) in enumerate(zip(videos, rows_of, people_of, strict=True), start=1):
        labels = clips.write_labels(tmp_path / f"gt{number}.txt", rows)
        merged = clips.write_json(tmp_path / f"people{number}.json", {str(k): v for k, v in people.items()})
        inputs.append(MotClip(video, number, labels, merged, starts[number - 1]))
    out = tmp_path / "set"
    settings = ConvertSettings(every, fraction, gap)
    if not expected:
        with pytest.raises(DataError, match="second visit"):
            convert_mot(out, inputs, settings)
        assert not out.exists()
        return
    summary = convert_mot(out, inputs, settings)

    dataset = read_visits(out)
    assert [frame.name for frame in dataset.train] == [name for name in frames if name in train]
    assert [frame.name for frame in dataset.gallery] == [name for name in frames if name not in train]
    for frame in (*dataset.train, *dataset.gallery):
        wanted = frames[frame.name]
        np.testing.assert_array_equal(frame.boxes, np.float32([box for box, *_ in wanted]).reshape(-1, 4))
        assert frame.identities.tolist() == [person for _, person, *_ in wanted]
    got = {
        query.identity: (query.name, tuple(query.box.tolist()), [dataset.gallery[i].name for i in indices])
        for query, indices in zip(dataset.queries, dataset.galleries["visits"], strict=True)
    }
    assert got == expected and len(dataset.queries) == len(expected)
    check_visit_numbers(out, frames, begins)
    assert summary.total.frames == len(frames) and summary.total.train_frames == len(train)
    assert summary.total.visits == len(begins) and summary.total.people == len({person for person, _ in begins})
    assert summary.total.boxes == sum(map(len, frames.values())) and summary.total.queries == len(expected)
    assert summary.dropped.get("no area inside the picture", 0) == sum(
        (row[0] - 1) % every == 0 for rows in rows_of for row in rows
    ) - sum(map(len, frames.values()))


def check_visit_numbers(out, frames, begins):
    """Visits are numbered from 1 in the order they begin, and the files say which box is of which."""
    content = json.loads((out / "annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    wanted = [(name, person, visit) for name, boxes in frames.items() for _, person, visit, _ in boxes]
    number_of = {}
    for entry, (name, person, visit) in zip(content["annotations"], wanted, strict=True):
        assert names[entry["image_id"]] == name
        if person == -1:
            assert entry["visit"] == -1
        else:
            assert number_of.setdefault((person, visit), entry["visit"]) == entry["visit"]
    ordered = sorted(begins, key=lambda key: number_of[key])
    assert [number_of[key] for key in ordered] == list(range(1, len(begins) + 1))
    assert [begins[key] for key in ordered] == sorted(begins.values())


def test_pictures_times_and_settings_are_kept(tmp_path):
    video, labels, people = clips.write_clip(tmp_path)
    out = tmp_path / "set"
    convert_mot(out, [MotClip(video, 5, labels, people)], ConvertSettings(every=2))
    content = json.loads((out / "annotations.json").read_text())
    assert content["info"]["settings"]["every"] == 2
    assert content["info"]["sources"] == [{"name": "clip.avi", "labels": "gt.txt"}]
    keys = ("file_name", "camera", "source", "frame", "time", "split", "width")
    assert [tuple(image[key] for key in keys) for image in content["images"]] == [
        (f"c5s1_{n:06d}.jpg", 5, "clip.avi", n, (n - 1) / 10, "train" if n < 7 else "gallery", clips.WIDTH)
        for n in (1, 3, 5, 7, 9)
    ]
    for number in (1, 3, 5, 7, 9):
        kept = cv2.imread(str(out / "images" / f"c5s1_{number:06d}.jpg"))
        assert np.abs(kept.astype(float) - clips.picture(number - 1)).mean() < 8
