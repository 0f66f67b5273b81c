"""MOT label files, people files, sequence folders and clips that can or cannot be converted."""

import json

import clips
import cv2
import numpy as np
import pytest

from psarm.data.convert import ConvertSettings, MotClip, convert_mot
from psarm.data.convert.mot import mot_sources
from psarm.data.convert.mot_labels import read_mot_labels, read_people
from psarm.data.convert.sources import visits_by_absence
from psarm.data.visits import read_visits
from psarm.errors import DataError, ImageError, UsageError


def read(tmp_path, text):
    path = tmp_path / "gt.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    labels = read_mot_labels(path)
    return [(box.frame, box.track, *box.box) for box in labels.boxes], labels.dropped


@pytest.mark.parametrize(
    ("text", "rows", "dropped"),
    [
        ("1,5,10,20,30,40\n", [(1, 5, 10, 20, 40, 60)], {}),
        ("\ufeff1, 5, -10.5, 20, 30, 40 ,1\r\n\r\n", [(1, 5, -10.5, 20, 19.5, 60)], {}),
        ("frame,id,x,y,w,h\n2,1,0,0,1,1\n", [(2, 1, 0, 0, 1, 1)], {}),
        ('"Frame","Track_ID",bb_left,bb_top,bb_width,bb_height,conf\n2,1,0,0,1,1,1\n', [(2, 1, 0, 0, 1, 1)], {}),
        ("2.0,1e0,0,0,1,1\n", [(2, 1, 0, 0, 1, 1)], {}),
        ("2,-1,0,0,1,1\n2,-1,4,0,1,1\n", [(2, -1, 0, 0, 1, 1), (2, -1, 4, 0, 5, 1)], {}),
        # ten columns end in world coordinates: the eighth is no class
        ("1,1,0,0,9,9,1,-4.1,-7,0\n1,2,0,0,9,9,0,-4.1,-7,0\n", [(1, 1, 0, 0, 9, 9)], {"conf 0": 1}),
        # nine columns have a class
        ("1,1,0,0,9,9,1,1,.5\n1,2,0,0,9,9,1,7,1\n1,3,0,0,9,9,0,1,1\n", [(1, 1, 0, 0, 9, 9)],
         {"class other than pedestrian": 1, "conf 0": 1}),
    ],
)  # fmt: skip
def test_label_files(tmp_path, text, rows, dropped):
    assert read(tmp_path, text) == (rows, dropped)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no box to use; expected lines frame,track,x,y,w,h,…."),
        ("frame,id,x,y,w,h\n", "holds no box to use"),
        ("1,1,0,0,9,9,0\n", "holds no box to use (1 lines of conf 0)"),
        ("1,1,0,0,9\n", "line 1: expected frame,track,x,y,w,h and what may follow (6, 7, 9, 10 columns in all)"),
        ("1,1,0,0,9,9,1,1\n", "line 1: expected frame,track,x,y,w,h and what may follow"),
        ("1,1,0,0,9,9\n\n1,2,0,0,9\n", "line 3 has 5 columns, but the first has 6."),
        ("1,1,0,0,9,9\n1,two,0,0,9,9\n", "line 2: column 2 is 'two'; expected a number."),
        ("1,1,0,nan,9,9\n", "line 1: column 4 is 'nan'; expected a number."),
        ("1,1,0,,9,9\n", "line 1: column 4 is ''; expected a number."),
        ("0,1,0,0,9,9\n", "line 1: the frame is 0; expected a whole number from 1 up."),
        ("-3,1,0,0,9,9\n", "line 1: the frame is -3; expected a whole number from 1 up."),
        ("1.5,1,0,0,9,9\n", "line 1: the frame is 1.5; expected"),
        ("1,-2,0,0,9,9\n", "line 1: the track is -2; expected a whole number from 0 up, or -1"),
        ("1,1e30,0,0,9,9\n", "line 1: the track is 1e30; expected"),
        ("3,1,0,0,9,9\n3,1,1,0,9,9\n", "line 2: track 1 is in frame 3 already (line 1); a track has one box a frame."),
        ("id,frame,x,y,w,h\n", "line 1 is 'id,frame,x,y,w,h'; expected columns frame,track,x,y,w,h, or no line"),
        ("frame,id,x1,y1,x2,y2\n1,1,0,0,9,9\n", "line 1 is 'frame,id,x1,y1,x2,y2'; expected columns"),
        ("a story\n", "line 1 is 'a story'; expected columns"),
        (b"\xff\xfe1\x00", "is not a text file; expected lines"),
    ],
)  # fmt: skip
def test_malformed_label_files(tmp_path, text, says):
    with pytest.raises(DataError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "gt.txt")) and says in str(error.value)


def test_a_label_file_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"gt\.txt cannot be read \(No such file or directory\)"):
        read_mot_labels(tmp_path / "gt.txt")


@pytest.mark.parametrize(
    ("content", "people"),
    [
        ({"track_to_person": {"1": 1, "19": 0}, "note": "merged by hand", "visits": []}, {1: 1, 19: 0}),
        ({"4": 12, "5": "12", "6": None, "7": -1}, {4: 12, 5: 12, 6: -1, 7: -1}),
    ],
)
def test_people_files(tmp_path, content, people):
    assert read_people(clips.write_json(tmp_path / "p.json", content)) == people


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1], "holds a JSON array; expected an object such as"),
        ({}, "track_to_person is an empty object; expected"),
        ({"track_to_person": [1]}, "track_to_person is array; expected"),
        ({"anna": 1}, "'anna' is not the number of a track; expected"),
        ({"-1": 1}, "'-1' is not the number of a track; expected"),
        ({"1": "anna"}, "track 1 is person 'anna'; expected a whole number from 0 up, or -1 if nobody knows."),
        ({"1": 1.5}, "track 1 is person 1.5; expected"),
        ({"1": -7}, "track 1 is person -7; expected"),
        ({"1": 4, " 1": 5}, "track 1 is there more than once (' 1'); expected every track once."),
        ({"track_to_person": {"7": 4, "07": 4}}, "track 7 is there more than once ('07'); expected"),
    ],
)
def test_malformed_people_files(tmp_path, content, says):
    with pytest.raises(DataError) as error:
        read_people(clips.write_json(tmp_path / "p.json", content))
    assert str(error.value).startswith(str(tmp_path / "p.json")) and says in str(error.value)


@pytest.mark.parametrize("text", ['{"1": 4, "1": 5}', '{"track_to_person": {"1": 4, "2": 4, "1": 4}}'])
def test_a_people_file_with_a_key_twice(tmp_path, text):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_people(path)
    assert str(error.value).startswith(f"{path} cannot be read as JSON (the key '1' is in an object twice); expected")


def test_visits_by_absence_count_the_frames_between():
    identities = [4, 4, 9, 4, 4]
    positions = [1, 4, 2, 5, 9]
    assert visits_by_absence(identities, positions, 2) == [0, 0, 1, 0, 2]
    assert visits_by_absence(identities, positions, 1) == [0, 2, 1, 2, 3]
    assert visits_by_absence([7, 7], [9, 1], 3) == [1, 0]  # in order of time, whatever the order of the rows
    assert visits_by_absence([], [], 3) == []


@pytest.fixture
def clip(tmp_path):
    return clips.write_clip(tmp_path / "in")


def convert(tmp_path, inputs, shared_ids=False, **settings):
    return convert_mot(tmp_path / "out", inputs, ConvertSettings(**settings), shared_ids=shared_ids)


def failing(tmp_path, inputs, kind=DataError, shared_ids=False, **settings):
    with pytest.raises(kind) as error:
        convert(tmp_path, inputs, shared_ids, **settings)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".out", "out"))] == []
    return str(error.value)


def test_people_and_gap(tmp_path, clip):
    video, labels, people = clip
    assert convert(tmp_path, [MotClip(video, 1, labels, people)]).returning == 1
    said = failing(tmp_path / "in", [MotClip(video, 1, labels)])
    assert said.startswith("None of the 3 people comes back for a second visit") and "--people" in said
    assert "--visit-gap N" in said
    # Without tracks' word for it, seven's two tracks are one visit unless the gap of five frames is long.
    assert convert(tmp_path / "a", [MotClip(video, 1, labels, people)], visit_gap=4).total.visits == 3
    said = failing(tmp_path / "in", [MotClip(video, 1, labels, people)], visit_gap=5)
    assert "--visit-gap has to be lower" in said


def test_a_gap_splits_a_track(tmp_path, clip):
    rows = [(frame, 4, 9, 9, 9, 9) for frame in (1, 2, 8, 9)]
    labels = clips.write_labels(tmp_path / "gap.txt", rows)
    summary = convert(tmp_path, [MotClip(clip[0], 1, labels)], visit_gap=3)
    assert (summary.total.people, summary.total.visits, summary.total.queries) == (1, 2, 1)


def test_two_tracks_of_one_person_in_a_frame(tmp_path, clip):
    video, labels, _ = clip
    people = clips.write_json(tmp_path / "p.json", {"1": 7, "2": 7, "3": 7})
    said = failing(tmp_path, [MotClip(video, 1, labels, people)])
    assert (
        "tracks 1 (line 1) and 3 (line 3) are both person 7 and both in frame 1; a person is in a frame once." in said
    )


def test_tracks_that_the_people_file_lacks(tmp_path, clip):
    video, labels, _ = clip
    people = clips.write_json(tmp_path / "p.json", {"1": 7, "99": 1})
    said = failing(tmp_path, [MotClip(video, 1, labels, people)])
    assert "p.json does not say who 2 of the tracks in" in said and "(2, 3); add them, as person -1 where" in said


def test_labels_beyond_the_end(tmp_path, clip):
    video, _, people = clip
    rows = [*clips.ROWS, *((frame, 3, 5, 5, 9, 9, 1) for frame in (11, 12, 40))]
    labels = clips.write_labels(tmp_path / "long.txt", rows)
    said = failing(tmp_path, [MotClip(video, 1, labels, people)], every=3)
    assert "long.txt has labels for frames 11, 12, 40, but clip.avi ends with frame 10; give the labels" in said


def test_labels_that_no_kept_frame_has(tmp_path, clip):
    labels = clips.write_labels(tmp_path / "even.txt", [(frame, 1, 5, 5, 9, 9) for frame in (2, 4)])
    assert "--every 2 keeps" in failing(tmp_path, [MotClip(clip[0], 1, labels)], every=2)


def test_nobody_with_an_identity(tmp_path, clip):
    video, labels, _ = clip
    people = clips.write_json(tmp_path / "p.json", {"1": -1, "2": -1, "3": -1})
    assert "Nobody in the labels has an identity" in failing(tmp_path, [MotClip(video, 1, labels, people)])


def test_a_return_that_only_training_frames_show(tmp_path, clip):
    video, labels, people = clip
    said = failing(tmp_path, [MotClip(video, 1, labels, people)], train_fraction=0.96)
    assert said.startswith("Nobody is seen on a second visit in the gallery") and "lower --train-fraction" in said


def test_a_return_outside_the_picture(tmp_path, clip):
    video, _, people = clip
    rows = [(1, 1, 5, 5, 9, 9), (9, 2, 500, 5, 9, 9), (9, 3, 5, 5, 9, 9)]
    labels = clips.write_labels(tmp_path / "gt.txt", rows)
    assert "second visit inside the pictures" in failing(tmp_path, [MotClip(video, 1, labels, people)])


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty (0 bytes)"), (b"no video at all", "is damaged or not a video")]
)
def test_no_video(tmp_path, clip, content, says):
    _, labels, people = clip
    video = tmp_path / "clip.mp4"
    video.write_bytes(content)
    assert failing(tmp_path, [MotClip(video, 1, labels, people)], ImageError).startswith(f"{video} {says}")
    video.unlink()
    assert "There is no video" in failing(tmp_path, [MotClip(video, 1, labels, people)], ImageError)


def test_a_video_that_breaks_off(tmp_path, clip):
    video, labels, people = clip
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 6 // 10])
    said = failing(tmp_path, [MotClip(video, 1, labels, people)], ImageError)
    assert said.startswith(f"The video {video} breaks off after ") and said.endswith(
        "of 10 frames; a whole one is needed."
    )


def test_several_clips_need_to_be_told_apart(tmp_path, clip):
    video, labels, people = clip
    bare, merged = MotClip(video, 1, labels), MotClip(video, 2, labels, people)
    assert "--people for each of them, or --shared-ids" in failing(tmp_path, [bare, merged], UsageError)
    assert "give one" in failing(tmp_path, [bare, merged], UsageError, shared_ids=True)
    twice = [MotClip(video, 4, labels, people), MotClip(video, 4, labels, people, 3.0)]
    assert "Camera 4 took several of the videos; say with --start" in failing(tmp_path, twice, UsageError)
    assert "--start inf is not a time" in failing(tmp_path, [MotClip(video, 1, labels, people, np.inf)], UsageError)
    assert "--link is for picture files" in failing(tmp_path, [merged], UsageError, link=True)
    assert "No video" in failing(tmp_path, [], UsageError)
    assert "have to be given with --labels" in failing(tmp_path, [MotClip(video, 1)], UsageError)


def test_shared_ids_and_two_clips_of_a_camera(tmp_path, clip):
    video, labels, _ = clip
    inputs = [MotClip(video, 4, labels, None, 100.0), MotClip(video, 4, labels, None, 0.0)]
    summary = convert(tmp_path, inputs, shared_ids=True, train_fraction=0)
    assert (summary.total.people, summary.total.visits, summary.total.queries) == (3, 6, 3)
    assert list(summary.cameras) == [4]
    # The second clip began first, so its visits are the queries.
    dataset = read_visits(tmp_path / "out")
    assert {query.name[:4] for query in dataset.queries} == {"c4s2"}
    assert len(dataset.gallery) == 20


def test_a_clip_without_frame_rate(tmp_path, clip, monkeypatch):
    video, labels, people = clip
    monkeypatch.setattr("psarm.data.convert.pictures.is_frame_rate", lambda value: False)
    convert(tmp_path, [MotClip(video, 1, labels, people)])
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert {image["time"] for image in content["images"]} == {None}
    read_visits(tmp_path / "out")
    with pytest.raises(DataError, match=r"clip\.avi does not state its frame rate"):
        mot_sources([MotClip(video, 1, labels, people), MotClip(video, 2, labels, people)], ConvertSettings())


@pytest.mark.parametrize("link", [False, True])
def test_a_sequence_folder(tmp_path, link):
    folder = clips.write_sequence(tmp_path / "MOT-01", 10, clips.ROWS)
    people = clips.write_json(tmp_path / "p.json", clips.PEOPLE)
    summary = convert(tmp_path, [MotClip(folder, 1, None, people)], link=link, every=3)
    assert (summary.total.frames, summary.total.boxes, summary.total.queries) == (4, 6, 1)
    for number in (1, 4, 7, 10):
        written = tmp_path / "out" / "images" / f"c1s1_{number:06d}.jpg"
        assert written.is_symlink() == link
        assert written.read_bytes() == (folder / "img1" / f"{number:06d}.jpg").read_bytes()
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [(image["source"], image["time"]) for image in content["images"][:2]] == [("MOT-01", 0.0), ("MOT-01", 0.3)]


def spoil(folder, how):
    images = folder / "img1"
    if how == "no ini":
        (folder / "seqinfo.ini").unlink()
    elif how == "no rate":
        (folder / "seqinfo.ini").write_text("[Sequence]\nname=x\n")
    elif how == "no section":
        (folder / "seqinfo.ini").write_text("frameRate=10\n")
    elif how == "rate 0":
        (folder / "seqinfo.ini").write_text("[Sequence]\nframeRate=0\n")
    elif how == "no images":
        images.rename(folder / "img2")
    elif how == "no numbers":
        for path in list(images.iterdir()):
            path.rename(images / f"x{path.name}")
    elif how == "hole":
        (images / "000004.jpg").unlink()
    elif how == "damaged":
        (images / "000004.jpg").write_bytes((images / "000004.jpg").read_bytes()[:200])
    elif how == "no labels":
        (folder / "gt" / "gt.txt").unlink()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no ini", "is a folder without seqinfo.ini; expected a MOT sequence or a video file."),
        ("no rate", "seqinfo.ini has no frameRate under [Sequence] that can be read"),
        ("no section", "seqinfo.ini has no frameRate under [Sequence] that can be read"),
        ("rate 0", "seqinfo.ini: frameRate is 0; expected a number above 0."),
        ("no images", "img1 is missing; it should hold the pictures of the sequence."),
        ("no numbers", "img1 holds no picture with a frame number for a name, such as 000001.jpg."),
        ("hole", "img1 has 000005.jpg where frame 4 should be; expected one picture a frame."),
        ("damaged", "000004.jpg: the image is cut off"),
        ("no labels", "gt.txt cannot be read (No such file or directory)"),
    ],
)
def test_broken_sequence_folders(tmp_path, how, says):
    folder = clips.write_sequence(tmp_path / "MOT-01", 10, clips.ROWS)
    people = clips.write_json(tmp_path / "p.json", clips.PEOPLE)
    spoil(folder, how)
    assert says in failing(tmp_path, [MotClip(folder, 1, None, people)])


def test_numbers_that_cannot_be_meant():
    for settings in ({"every": 0}, {"train_fraction": 1.0}, {"train_fraction": float("nan")}, {"visit_gap": -1}):
        with pytest.raises(UsageError, match="--"):
            ConvertSettings(**settings)


def test_frames_of_a_video_are_the_frames_of_its_labels(tmp_path):
    """A white square moves over black frames: every written box is on it."""
    video = tmp_path / "square.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (clips.WIDTH, clips.HEIGHT))
    rows = []
    for frame in range(1, 21):
        image = np.zeros((clips.HEIGHT, clips.WIDTH, 3), np.uint8)
        image[16:32, 2 * frame : 2 * frame + 16] = 255
        writer.write(image)
        rows.append((frame, 1 if frame < 8 else 2, 2 * frame, 16, 16, 16))
    writer.release()
    labels = clips.write_labels(tmp_path / "gt.txt", rows)
    people = clips.write_json(tmp_path / "p.json", {"1": 0, "2": 0})
    convert(tmp_path, [MotClip(video, 1, labels, people)], every=3)
    dataset = read_visits(tmp_path / "out")
    for frame in (*dataset.train, *dataset.gallery):
        image = cv2.imread(str(frame.path))
        [(x1, y1, x2, y2)] = frame.boxes.astype(int)
        assert image[y1:y2, x1:x2].mean() > 230
        image[y1:y2, x1:x2] = 0
        assert image.mean() < 8


def test_people_of_several_clips_are_counted(tmp_path, clip):
    """A person's number is the same person in every video, and the summary says how many are in more than one."""
    video, labels, people = clip
    assert convert(tmp_path, [MotClip(video, 1, labels, people)]).shared == 0
    (tmp_path / "two").mkdir()
    summary = convert(tmp_path / "two", [MotClip(video, camera, labels, people) for camera in (1, 2)])
    assert summary.shared == summary.total.people == summary.to_dict()["shared"] == 2


def test_boxes_that_are_not_in_pixels(tmp_path, clip):
    video, _, people = clip
    labels = clips.write_labels(
        tmp_path / "fractions.txt", [(frame, track, 0.1, 0.2, 0.1, 0.3, 1) for frame, track in ((1, 1), (9, 2), (2, 3))]
    )
    said = failing(tmp_path / "in", [MotClip(video, 1, labels, people)])
    assert said.startswith("No box of an identified person has any area") and "pixels" in said
