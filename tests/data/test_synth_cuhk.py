"""CUHK-SYSU as the generator leaves it: the official files to the letter, and what was drawn in them."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from psarm.cli import run
from psarm.data.cuhk_sysu import read_cuhk_sysu
from psarm.data.prw import read_prw
from psarm.data.synth import SynthSettings, SynthSummary, generate_dataset
from psarm.data.synth.cuhk_layout import CuhkLayout
from psarm.data.synth.layout import Picture, QueryBox
from psarm.data.synth.plan import FramePlan
from psarm.data.types import UNLABELLED

SETTINGS = SynthSettings(frames=30, identities=8, width=128, height=72, seed=3)
LISTS = "annotation/test/train_test"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, SynthSummary]:
    root = tmp_path_factory.mktemp("synth") / "cuhk"
    return root, generate_dataset(root, SETTINGS, "cuhk-sysu")


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_files_of_cuhk_sysu(made):
    root, summary = made
    files = set(contents(root))
    pictures = {name for name in files if name.startswith("Image/SSM/")}
    lists = {f"{LISTS}/{name}.mat" for name in ("Train", "TestG50", "TestG100")}
    annotation = {f"annotation/{name}.mat" for name in ("Images", "Person", "pool")}
    assert pictures == {f"Image/SSM/s{number}.jpg" for number in range(1, 31)}
    assert files - pictures == lists | annotation | {"synth.json"}
    assert (summary.train_frames, summary.test_frames) == (15, 15)


def test_what_is_read_is_what_was_drawn(made, tmp_path):
    """The same settings in PRW's layout draw the same people; frames find one another by their pictures."""
    root, _ = made
    generate_dataset(tmp_path / "prw", SETTINGS)
    drawn, read = read_prw(tmp_path / "prw"), read_cuhk_sysu(root)
    by_picture = {frame.path.read_bytes(): frame for frame in [*drawn.train, *drawn.gallery]}
    names = {}
    for split in ("train", "gallery"):
        ours = getattr(read, split)
        theirs = {frame.name for frame in getattr(drawn, split)}
        assert {by_picture[frame.path.read_bytes()].name for frame in ours} == theirs
        counts = Counter(identity for frame in getattr(drawn, split) for identity in frame.identities.tolist())
        for frame in ours:
            other = by_picture[frame.path.read_bytes()]
            names[frame.name] = other.name
            np.testing.assert_array_equal(frame.boxes, other.boxes)
            seen_twice = [pid if counts[pid] > 1 else UNLABELLED for pid in other.identities.tolist()]
            assert frame.identities.tolist() == seen_twice
    assert sorted(read.train_labels) == sorted(drawn.train_labels)
    identities = sorted(read.train_labels)
    assert identities != list(range(1, len(identities) + 1))
    asked = {(query.identity, query.name, *query.box.tolist()) for query in drawn.queries}
    assert {query.identity for query in read.queries} == {query.identity for query in drawn.queries}
    assert len(read.queries) == len({query.identity for query in read.queries})
    assert any((query.identity, names[query.name], *query.box.tolist()) in asked for query in read.queries)


def test_galleries(made):
    root, _ = made
    dataset = read_cuhk_sysu(root)
    assert list(dataset.galleries) == ["50", "100"]
    for name, galleries in dataset.galleries.items():
        for query, rows in zip(dataset.queries, galleries, strict=True):
            frames = [dataset.gallery[row] for row in rows]
            # All of a small pool but the query's own image, those with the person first.
            assert {frame.name for frame in frames} == {frame.name for frame in dataset.gallery} - {query.name}
            shown = [query.identity in frame.identities for frame in frames]
            assert shown == sorted(shown, reverse=True) and any(shown), name
    assert [rows.tolist() for rows in dataset.galleries["50"]] != [rows.tolist() for rows in dataset.galleries["100"]]


def test_nested_as_public_readers_index_it(made):
    """The indexing of the readers and evaluations that are published, on every file."""
    root, summary = made
    images = loadmat(root / "annotation/Images.mat")["Img"].squeeze()
    assert images.shape == (30,)
    boxes = {}
    for name, count, own in images:
        stacked = np.asarray([box[0] for box in own[0]]).reshape(-1, 4)
        assert len(stacked) == int(count.squeeze())
        boxes[str(name[0])] = stacked.astype(np.int32).tolist()
    pool = [str(cell[0]) for cell in loadmat(root / "annotation/pool.mat")["pool"].squeeze()]
    assert set(pool) < set(boxes) and len(pool) == 15
    train = loadmat(root / LISTS / "Train.mat")["Train"].squeeze()
    for item in train:
        scenes = item[0, 0][2].squeeze()
        assert re.fullmatch(r"p\d+", str(item[0, 0][0][0])) and len(scenes) == int(item[0, 0][1].squeeze()) > 1
        for name, box, _ in scenes:
            assert str(name[0]) not in pool
            assert box.squeeze().astype(np.int32).tolist() in boxes[str(name[0])]
    people = loadmat(root / "annotation/Person.mat")["Person"].squeeze()
    assert len(people) == len(train) + summary.queries
    for size in (50, 100):
        protocol = loadmat(root / LISTS / f"TestG{size}.mat")[f"TestG{size}"].squeeze()
        assert len(protocol) == summary.queries
        for item in protocol:
            query = item["Query"]
            name, box = str(query["imname"][0, 0][0]), query["idlocate"][0, 0][0].astype(np.int32)
            assert box.tolist() in boxes[name] and name in pool and str(query["idname"][0, 0][0])[0] == "p"
            found = 0
            for entry in item["Gallery"].squeeze():
                truth = entry[1][0].astype(np.int32)
                assert str(entry[0][0]) in pool and str(entry[0][0]) != name
                assert truth.size == 0 or truth.tolist() in boxes[str(entry[0][0])]
                found += truth.size > 0
            assert found > 0


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    root, _ = made
    generate_dataset(tmp_path / "again", SETTINGS, "cuhk-sysu", workers=2)
    assert contents(tmp_path / "again") == contents(root)


def test_larger_galleries_where_the_pool_is_large_enough(tmp_path):
    """Without drawing: 560 gallery images, one person in 120 of them, one in two."""
    root = tmp_path / "cuhk"
    settings = SynthSettings()
    plans = [FramePlan(1, 1, number, number >= 4, 1.0, ()) for number in range(564)]
    layout = CuhkLayout()
    pictures = []
    for number, (plan, file) in enumerate(zip(plans, layout.files(plans, settings), strict=True)):
        people = [11] if number < 4 else [7] * (number < 124) + [9] * (number in {4, 5}) + [5] * (number == 6)
        rows = [(float(pid), 30.0 * i, 1.0, 20.0, 40.0) for i, pid in enumerate(people)]
        pictures.append(Picture(plan, file, rows))
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    queries = [QueryBox(pid, pictures[4].rows[i][1:], pictures[4]) for i, pid in enumerate((7, 9))]
    layout.write(root, pictures, queries, settings)
    dataset = read_cuhk_sysu(root)
    sizes = {name: [len(rows) for rows in galleries] for name, galleries in dataset.galleries.items()}
    assert sizes == {"50": [119, 50], "100": [119, 100], "500": [500, 500]}
    for query, rows in zip(dataset.queries, dataset.galleries["500"], strict=True):
        names = [dataset.gallery[row].name for row in rows]
        assert len(set(names)) == 500 and query.name not in names
    assert 5 not in np.concatenate([frame.identities for frame in dataset.gallery])  # seen once


def test_overwrite_knows_both_layouts(tmp_path, capsys):
    out = str(tmp_path / "out")
    tiny = ["--frames", "12", "--identities", "4", "--size", "112x64", "--people-per-frame", "2", "--workers", "1"]
    assert run(["data", "synth", out, *tiny]) == 0
    assert run(["data", "synth", out, *tiny, "--format", "cuhk-sysu"]) == 2
    assert run(["data", "synth", out, *tiny, "--format", "cuhk-sysu", "--overwrite", "--json"]) == 0
    assert '"format": "cuhk-sysu"' in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"Image", "annotation", "synth.json"}
    assert run(["data", "synth", out, *tiny, "--overwrite"]) == 0
    assert (tmp_path / "out" / "frames").is_dir() and not (tmp_path / "out" / "Image").exists()
