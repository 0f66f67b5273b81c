import json
import pickle

import numpy as np
import pytest
from gallery_oracle import gallery_oracle, random_lists_case
from search_oracle import Dataset, Frame, Query, detection_oracle, random_case, search_oracle

from psarm.errors import DataError, UsageError
from psarm.evaluation import (
    DetectionSet,
    DetectionsFile,
    read_detections,
    score_detections,
    write_detections,
)


def content_of(case, context=True):
    names = [frame.name for frame in case.dataset.gallery]
    return DetectionsFile(names, case.detections, case.query_embeddings, case.context if context else None)


@pytest.fixture
def case():
    return random_case(5)


@pytest.fixture
def arrays(case, tmp_path):
    """The arrays of a good file, to break one of."""
    write_detections(tmp_path / "good.npz", content_of(case))
    with np.load(tmp_path / "good.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def test_round_trip_keeps_everything(case, tmp_path):
    for context in (False, True):
        content = content_of(case, context)
        write_detections(tmp_path / "a.npz", content)
        back = read_detections(tmp_path / "a.npz")
        assert back.gallery_names == content.gallery_names
        np.testing.assert_array_equal(back.query_embeddings, content.query_embeddings)
        assert (back.context is not None) == context
        for mine, theirs in ((back.gallery, content.gallery), (back.context, content.context)):
            for name in ("counts", "boxes", "scores", "embeddings"):
                np.testing.assert_array_equal(getattr(mine, name, None), getattr(theirs, name, None))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_file_keys_are_the_contract(arrays):
    assert set(arrays) == {
        "gallery_names",
        "gallery_counts",
        "boxes",
        "scores",
        "embeddings",
        "query_embeddings",
        "context_counts",
        "context_boxes",
        "context_scores",
        "context_embeddings",
    }


def test_half_precision_is_read_as_float32(arrays, tmp_path):
    arrays["embeddings"] = arrays["embeddings"].astype(np.float16)
    np.savez(tmp_path / "a.npz", **arrays)
    assert read_detections(tmp_path / "a.npz").gallery.embeddings.dtype == np.float32


def test_scores_equal_the_oracle_in_any_order_of_images(case):
    content = content_of(case)
    order = np.random.default_rng(0).permutation(len(content.gallery_names))
    shuffled = DetectionsFile(
        [content.gallery_names[i] for i in order],
        content.gallery.reordered(order),
        content.query_embeddings,
        content.context,
    )
    got = score_detections(case.dataset, shuffled, k1=4, k2=3)
    assert got == score_detections(case.dataset, content, k1=4, k2=3)
    assert got["detection"] == pytest.approx(dict(zip(("recall", "ap"), detection_oracle(case), strict=True)))
    for key, options in {
        "search": {},
        "search_cbgm": {"cbgm": (4, 3)},
        "search_cross_camera": {"cross_camera": True},
    }.items():
        expected = search_oracle(case, **options)
        means = {f"top{k}": np.mean([0 <= rank < k for _, rank in expected]) for k in (1, 5, 10)}
        assert got[key] == pytest.approx({"mAP": np.mean([ap for ap, _ in expected])} | means, abs=1e-9)
    assert json.loads(json.dumps(got)) == got
    without = score_detections(case.dataset, content_of(case, context=False))
    assert sorted(without) == ["detection", "search", "search_cross_camera"]


def replace(key, change):
    return lambda arrays: arrays.__setitem__(key, change(arrays[key]))


def nan_at_first(values):
    values = values.copy()
    values.flat[0] = np.nan
    return values


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: a.pop("scores"), "the array scores is missing"),
        (lambda a: a.pop("context_boxes"), "the array context_boxes is missing"),
        (replace("boxes", lambda v: v[:, :3]), r"boxes has shape \[\d+, 3\]; \[\d+, 4\] is needed"),
        (replace("boxes", lambda v: v[:, [2, 1, 0, 3]]), "boxes row 0 is .*x1, y1, x2, y2"),
        (replace("embeddings", lambda v: v[:-1]), "embeddings has shape"),
        (replace("embeddings", lambda v: v.astype(str)), "embeddings should hold numbers"),
        (replace("embeddings", nan_at_first), "embeddings holds values that are not finite"),
        (replace("scores", nan_at_first), "scores holds values that are not finite"),
        (replace("scores", lambda v: v * 100), "scores runs from .* to 100; it should stay in 0 to 1"),
        (replace("gallery_counts", lambda v: v + 1), r"gallery_counts adds up to \d+, but scores has \d+ rows"),
        (replace("gallery_counts", lambda v: v * 1.0), "gallery_counts should hold whole numbers"),
        (replace("gallery_counts", lambda v: np.append(v, [-1, 1])), "none below 0"),
        (replace("gallery_names", lambda v: v[:-1]), "gallery_names lists 11 images, but gallery_counts 12"),
        (replace("gallery_names", lambda v: np.append(v[1:], v[-1])), "lists frame11.jpg more than once"),
        (replace("gallery_names", lambda v: v.astype("S20")), "gallery_names should hold text"),
        (replace("query_embeddings", lambda v: v[:, :2]), r"query_embeddings has shape \[8, 2\]; \[any, 5\]"),
        (replace("query_embeddings", lambda v: v[:-1]), "context_counts has 8 entries for 7"),
        (replace("context_embeddings", lambda v: v[:, :2]), "context_embeddings has shape"),
    ],
)
def test_damaged_arrays_are_named(arrays, tmp_path, damage, message):
    damage(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        read_detections(tmp_path / "bad.npz")
    assert "bad.npz" in str(caught.value)


def test_an_empty_context_is_refused(arrays, tmp_path):
    counts = arrays["context_counts"]
    counts[1] += counts[0]
    counts[0] = 0
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match="query 0 is 0"):
        read_detections(tmp_path / "bad.npz")


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_damaged_files_and_pickles_are_refused(arrays, tmp_path):
    path, victim = tmp_path / "bad.npz", tmp_path / "victim"
    np.savez(tmp_path / "good2.npz", **arrays)
    whole = (tmp_path / "good2.npz").read_bytes()
    np.save(tmp_path / "single.npy", np.zeros(3))
    objects = np.array([Touch(victim)], dtype=object)
    np.savez(tmp_path / "objects.npz", **(arrays | {"gallery_names": objects}), allow_pickle=True)
    contents = [
        b"",
        b"not a zip",
        whole[: len(whole) // 2],
        whole.replace(b"\x93NUMPY", b"\x93NUMPX"),
        (tmp_path / "single.npy").read_bytes(),
        (tmp_path / "objects.npz").read_bytes(),
        pickle.dumps(Touch(victim)),
    ]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.npz") as caught:
            read_detections(path)
        assert "allow_pickle" not in str(caught.value)
    assert not victim.exists()
    for missing in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(DataError, match="is not a file"):
            read_detections(missing)


def test_detections_of_another_data_set_are_refused(case):
    content = content_of(case)
    renamed = DetectionsFile(["x.jpg", *content.gallery_names[1:]], content.gallery, content.query_embeddings)
    with pytest.raises(DataError, match=r"not in the data set's gallery \(first: x.jpg\) and not 1 of its 12"):
        score_detections(case.dataset, renamed)
    gallery = content.gallery
    part = DetectionSet.from_images([gallery.of_image(i) for i in range(11)])
    with pytest.raises(DataError, match=r"not 1 of its 12 images \(first: frame11.jpg\)"):
        score_detections(case.dataset, DetectionsFile(content.gallery_names[:-1], part, content.query_embeddings))
    with pytest.raises(DataError, match="7 query embeddings, but the data set 8 queries"):
        score_detections(case.dataset, DetectionsFile(content.gallery_names, gallery, content.query_embeddings[:-1]))
    moved = Dataset(
        case.dataset.gallery,
        [Query(q.name, q.camera, q.box + 500, q.identity) for q in case.dataset.queries],
    )
    with pytest.raises(DataError, match="begins with a box that is not the query's"):
        score_detections(moved, content)


def test_a_data_set_without_people_is_refused():
    nobody = Frame("a.jpg", 1, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="at least one query and one annotated person"):
        score_detections(Dataset([nobody], []), content_of(random_case(0)))


def test_galleries_are_scored_by_the_names_asked_for():
    case = random_lists_case(6)
    sizes = ["3", "full", "-1", "mixed"]
    got = score_detections(case.dataset, content_of(case), gallery_sizes=sizes)
    searches = [f"{key}{suffix}" for key in ("search", *(f"search_{s}" for s in sizes)) for suffix in ("", "_cbgm")]
    assert list(got) == ["detection", *searches, "search_cross_camera"]
    for key in searches:
        _, _, size = key.removesuffix("_cbgm").partition("search")
        expected = gallery_oracle(case, size[1:] or "7", (4, 3) if key.endswith("_cbgm") else None)
        assert got[key]["mAP"] == pytest.approx(np.mean([ap for ap, _ in expected]), abs=1e-9), key
    expected = gallery_oracle(case, "7", cross_camera=True)
    assert got["search_cross_camera"]["mAP"] == pytest.approx(np.mean([ap for ap, _ in expected]), abs=1e-9)
    for frame in case.dataset.gallery:
        frame.camera = 0
    plain = score_detections(case.dataset, content_of(case, context=False), gallery_sizes=["3"])
    assert list(plain) == ["detection", "search", "search_3"]
    with pytest.raises(UsageError, match="it has 3, 7, mixed, full"):
        score_detections(case.dataset, content_of(case), gallery_sizes=["3", "50"])
