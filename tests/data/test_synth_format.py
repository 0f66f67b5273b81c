"""What the generator leaves on disk is PRW's format to the letter."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import loadmat

from psarm.data.prw import read_prw
from psarm.data.synth import SynthSettings, SynthSummary, generate_dataset

SETTINGS = SynthSettings(frames=24, identities=8, width=160, height=90, seed=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, SynthSummary]:
    root = tmp_path_factory.mktemp("synth") / "prw"
    return root, generate_dataset(root, SETTINGS)


def names_of(root: Path, file: str, variable: str) -> list[str]:
    cells = loadmat(root / file)[variable]
    assert cells.dtype == object
    assert cells.shape[1] == 1
    return [str(cell[0]) for cell in cells[:, 0]]


def rows_of(root: Path, name: str) -> np.ndarray:
    return loadmat(root / "annotations" / f"{name}.jpg.mat")["box_new"]


def queries_of(root: Path) -> list[tuple[int, list[float], str]]:
    lines = (root / "query_info.txt").read_bytes().decode("ascii").split("\r\n")
    assert lines.pop() == ""
    fields = [line.split(" ") for line in lines]
    assert all(len(field) == 6 for field in fields)
    return [(int(pid), [float(value) for value in box], frame) for pid, *box, frame in fields]


def test_files_of_prw_and_nothing_half_written(made):
    root, _ = made
    found = {path.name for path in root.iterdir()}
    prw = {"frames", "annotations", "query_box", "frame_train.mat", "frame_test.mat", "query_info.txt"}
    assert found == prw | {"synth.json"}
    assert [path.name for path in root.parent.iterdir()] == ["prw"]


def test_every_listed_frame_has_picture_and_boxes(made):
    root, summary = made
    train = names_of(root, "frame_train.mat", "img_index_train")
    test = names_of(root, "frame_test.mat", "img_index_test")
    assert (len(train), len(test)) == (12, 12) == (summary.train_frames, summary.test_frames)
    assert not set(train) & set(test)
    assert {f"{name}.jpg" for name in train + test} == {path.name for path in (root / "frames").iterdir()}
    assert {f"{name}.jpg.mat" for name in train + test} == {path.name for path in (root / "annotations").iterdir()}
    for name in train + test:
        assert re.fullmatch(r"c[1-6]s[1-3]_\d{6}", name)
        assert cv2.imread(str(root / "frames" / f"{name}.jpg")).shape == (90, 160, 3)
    for names in (train, test):
        assert {name[1] for name in names} == set("123456")


def test_boxes_are_inside_the_picture(made):
    root, summary = made
    count = 0
    for path in (root / "annotations").iterdir():
        rows = loadmat(path)["box_new"]
        assert rows.dtype == np.float64
        assert rows.shape[1] == 5
        pids, x, y, w, h = rows.T
        assert ((pids == -2) | (pids > 0)).all()
        named = pids[pids > 0]
        assert len(set(named)) == len(named)
        assert (x >= 0).all() and (y >= 0).all() and (w > 0).all() and (h > 0).all()
        assert (x + w <= 160).all() and (y + h <= 90).all()
        count += len(rows)
    assert count == summary.boxes > 40


def test_training_and_test_share_no_identity(made):
    root, summary = made
    sides = []
    for file, variable in (("frame_train.mat", "img_index_train"), ("frame_test.mat", "img_index_test")):
        pids = np.concatenate([rows_of(root, name)[:, 0] for name in names_of(root, file, variable)])
        sides.append(set(pids.astype(int)) - {-2})
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [summary.train_identities, summary.test_identities] == [4, 4]
    pids = sorted(sides[0] | sides[1])
    assert pids != list(range(1, len(pids) + 1)), "PRW's identity numbers have gaps"


def test_every_query_is_annotated_and_can_be_found_elsewhere(made):
    root, summary = made
    test = names_of(root, "frame_test.mat", "img_index_test")
    where = {name: rows_of(root, name) for name in test}
    queries = queries_of(root)
    assert len(queries) == summary.queries > 4
    for pid, box, frame in queries:
        assert [pid, *box] in where[frame].tolist()
        assert any(pid in rows[:, 0] for name, rows in where.items() if name != frame)
        crop = cv2.imread(str(root / "query_box" / f"{pid}_{frame}.jpg"))
        assert crop.shape[:2] == (box[3], box[2])
    cameras = {pid: {frame[1] for other, _, frame in queries if other == pid} for pid, _, _ in queries}
    assert any(len(seen) > 1 for seen in cameras.values())


def test_reader_reads_it(made):
    root, summary = made
    dataset = read_prw(root)
    assert (len(dataset.train), len(dataset.gallery), len(dataset.queries)) == (12, 12, summary.queries)
    assert len(dataset.train_labels) == summary.train_identities


def test_summary_adds_up(made):
    _, summary = made
    assert [camera.camera for camera in summary.cameras] == [1, 2, 3, 4, 5, 6]
    assert sum(camera.boxes for camera in summary.cameras) == summary.boxes
    assert sum(camera.queries for camera in summary.cameras) == summary.queries
    assert 0 < summary.unlabelled < summary.boxes
