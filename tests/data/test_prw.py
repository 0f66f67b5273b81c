import numpy as np
import pytest
from prw_files import write_list, write_matrix, write_prw, write_queries
from scipy.io import savemat

from psarm.data.prw import camera_of, has_area, read_prw
from psarm.data.types import UNLABELLED
from psarm.errors import DataError


@pytest.fixture
def root(tmp_path):
    return write_prw(tmp_path / "PRW")


def test_reads_frames_queries_and_labels(root):
    dataset = read_prw(root)
    assert dataset.name == "prw" and dataset.root == root
    assert [frame.name for frame in dataset.train] == ["c1s1_000151.jpg", "c2s1_000151.jpg"]
    assert [frame.name for frame in dataset.gallery] == ["c1s2_000176.jpg", "c3s2_000176.jpg", "c6s3_000201.jpg"]
    assert [frame.camera for frame in dataset.train + dataset.gallery] == [1, 2, 1, 3, 6]
    assert all(frame.path.is_file() for frame in dataset.train + dataset.gallery)
    first = dataset.train[0]
    assert first.boxes.dtype == np.float32 and first.identities.dtype == np.int64
    assert first.boxes.tolist() == [[10, 20, 40, 60], [60, 5, 80, 55]]
    assert first.identities.tolist() == [478, UNLABELLED]
    assert dataset.train[1].boxes.tolist() == [[10, 20, 40, 60]]
    assert dataset.gallery[2].boxes.shape == (0, 4)
    assert dataset.train_labels == {478: 0, 932: 1}
    query = dataset.queries[1]
    assert (query.name, query.camera, query.identity) == ("c1s2_000176.jpg", 1, 8)
    assert query.box.tolist() == [50, 10, 80, 70] and query.box.dtype == np.float32
    assert query.path == dataset.gallery[0].path


def test_the_first_variable_present_counts(root):
    matrices = {"anno_previous": np.ones((1, 5)), "anno_file": np.full((2, 5), 3.0)}
    savemat(str(root / "annotations" / "c1s1_000151.jpg.mat"), matrices, appendmat=False)
    assert read_prw(root).train[0].identities.tolist() == [3, 3]


def test_negative_coordinates_are_clipped_and_boxes_without_area_left_out(root):
    rows = [[1, -5, -7.5, 20, 40], [2, 5, 5, 0, 9], [3, 5, 5, 9, -1], [4, 5.1, 5, 0.8, 9]]
    write_matrix(root, "c1s1_000151", rows)
    write_queries(root, ["7 -3 -4.5 25 50 c3s2_000176"])
    dataset = read_prw(root)
    assert dataset.train[0].boxes.tolist() == [[0, 0, 20, 40]]
    assert dataset.train[0].identities.tolist() == [1]
    assert dataset.queries[0].box.tolist() == [0, 0, 22, 45]


def test_boxes_are_those_of_the_published_protocol(root):
    rng = np.random.default_rng(5)
    rows = np.column_stack([np.arange(50), rng.uniform(-9, 60, (50, 2)), rng.uniform(12, 50, (50, 2))])
    write_matrix(root, "c1s1_000151", rows)
    write_queries(root, [f"{pid:.0f} {x!r} {y!r} {w!r} {h!r} c3s2_000176" for pid, x, y, w, h in rows.tolist()])
    dataset = read_prw(root)
    # Clip, add, truncate to integers:
    expected = np.clip(rows[:, 1:], 0, None)
    expected[:, 2:] += expected[:, :2]
    np.testing.assert_array_equal(dataset.train[0].boxes, expected.astype(np.int32))
    # Add, truncate to integers, clip:
    for query, (_, x, y, w, h) in zip(dataset.queries, rows, strict=True):
        np.testing.assert_array_equal(query.box, np.clip(np.array([x, y, x + w, y + h]).astype(np.int32), 0, None))
    assert (rows[:, 1:3] < 0).any() and dataset.train[0].boxes.dtype == dataset.queries[0].box.dtype == np.float32


def test_integer_matrices_and_names_with_extension(root):
    write_matrix(root, "c1s1_000151", np.array([[1, 2, 3, 4, 5]], np.uint16))
    write_list(root, "train", ["c1s1_000151.jpg"])
    (root / "query_info.txt").write_text("7 40 10 25 50 c3s2_000176.jpg\n\n")
    dataset = read_prw(root)
    assert dataset.train[0].boxes.tolist() == [[2, 3, 6, 8]]
    assert [query.name for query in dataset.queries] == ["c3s2_000176.jpg"]


def test_large_identities_are_exact(root):
    write_matrix(root, "c1s1_000151", np.array([[2**62 + 1, 2, 3, 4, 5], [-2, 2, 3, 4, 5]], np.int64))
    write_matrix(root, "c2s1_000151", np.array([[2**63 - 1, 2, 3, 4, 5]], np.uint64), "anno_file")
    write_matrix(root, "c3s2_000176", [[2.0**53 - 1, 2, 3, 4, 5]])
    write_queries(root, [f"{2**53 - 1} 40 10 25 50 c3s2_000176", f"{2**63 - 1} 40 10 25 50 c3s2_000176"])
    dataset = read_prw(root)
    assert [frame.identities.tolist() for frame in dataset.train] == [[2**62 + 1, -1], [2**63 - 1]]
    assert dataset.gallery[1].identities.tolist() == [2**53 - 1]
    assert [query.identity for query in dataset.queries] == [2**53 - 1, 2**63 - 1]


def test_a_box_beyond_all_numbers_is_left_out(root):
    write_matrix(root, "c1s1_000151", [[1, 2, 3, 4, 5], [2, 1e308, 3, 1e308, 5], [3, 1e300, 3, 4, 5]])
    assert read_prw(root).train[0].identities.tolist() == [1]


def test_what_is_missing_from_the_root_is_listed(tmp_path, root):
    with pytest.raises(DataError, match="not a directory"):
        read_prw(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"frames/, annotations/, frame_train.mat, frame_test.mat, query_info.txt not"):
        read_prw(tmp_path)
    (root / "frame_test.mat").unlink()
    with pytest.raises(DataError, match=r"PRW data set: frame_test.mat not found"):
        read_prw(root)


def remove(name):
    return lambda root: (root / name).unlink()


def cut(name):
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:100])


def matrix(value, variable="box_new"):
    return lambda root: write_matrix(root, "c1s1_000151", value, variable)


def frames(*names):
    return lambda root: write_list(root, "train", names)


def query(line):
    return lambda root: write_queries(root, ["7 40 10 25 50 c3s2_000176", line])


ANNOTATION = r"annotations/c1s1_000151\.jpg\.mat"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("frames/c1s1_000151.jpg"), r"frames/c1s1_000151.jpg is listed but missing; .*data check"),
        (remove("annotations/c1s1_000151.jpg.mat"), f"{ANNOTATION} is missing"),
        (cut("annotations/c1s1_000151.jpg.mat"), f"{ANNOTATION} cannot be read as a MATLAB file"),
        (matrix(np.ones((3, 4))), ANNOTATION + r": box_new should be .* \[n,5\] .* shape \[3, 4\]"),
        (matrix(np.ones((2, 5, 2))), r"shape \[2, 5, 2\]"),
        (matrix([["text"]]), r"should be numbers"),
        (matrix(np.ones((1, 5)), "boxes"), r"none of the variables box_new.*found: boxes"),
        (matrix([[1.5, 1, 1, 5, 5]]), r"row 0 has identity 1.5"),
        (matrix([[1, 1, 1, 5, 5], [-3, 1, 1, 5, 5]]), r"row 1 has identity -3"),
        (matrix([[np.nan, 1, 1, 5, 5]]), r"identity nan"),
        (matrix([[np.inf, 1, 1, 5, 5]]), r"identity inf"),
        (matrix([[1e30, 1, 1, 5, 5]]), r"row 0 has identity 1e\+30; .* that float64 and int64 hold exactly"),
        (matrix([[2.0**53, 1, 1, 5, 5]]), r"identity 9007199254740992.0"),
        (matrix(np.array([[2.0**24, 1, 1, 5, 5]], np.float32)), r"identity 16777216.0; .* that float32 and"),
        (matrix(np.array([[2**63 + 5, 1, 1, 5, 5]], np.uint64)), r"identity 9223372036854775813; expected"),
        (matrix(np.array([[-1, 1, 1, 5, 5]], np.int64)), r"identity -1; expected"),
        (matrix([[1, np.nan, 1, 5, 5]]), ANNOTATION + " holds a box that is not finite"),
        (cut("frame_train.mat"), r"frame_train.mat cannot be read as a MATLAB file"),
        (lambda root: savemat(root / "frame_train.mat", {"x": 1}), r"no variable img_index_train \(found: x\)"),
        (lambda root: savemat(root / "frame_train.mat", {"img_index_train": np.ones((2, 1))}), "entry 0 is not text"),
        (frames("c1s1_000151", "street"), r"frame_train.mat: frame name 'street' holds no camera"),
        (frames("c1s1_000151", "../c1s1_000151"), "holds no camera"),
        (frames("c1s1_000151", "c1s1_000151"), "lists c1s1_000151.jpg more than once"),
        (query("7 40 10 25 c3s2_000176"), r"query_info.txt line 2: expected `identity x y w h frame`"),
        (query("7 40 ten 25 50 c3s2_000176"), r"query_info.txt line 2: expected a whole identity"),
        (query("7 40 10 0 50 c3s2_000176"), r"line 2: the box .* has no area"),
        (query("7 40 nan 25 50 c3s2_000176"), r"line 2: the box .* has no area"),
        (query("7 0 0 1e300 1e300 c3s2_000176"), r"line 2: the box .* has no area"),
        *[
            (query(f"{identity} 40 10 25 50 c3s2_000176"), f"line 2: identity {identity} is out of range; .* from 0 to")
            for identity in (-1, -2, -7, 2**63, 10**21)
        ],
        (query("7 40 10 25 50 street"), r"line 2: frame name 'street'"),
        (query("7 40 10 25 50 c3s2_999999"), r"line 2: the frame .*c3s2_999999.jpg is missing"),
        (lambda root: (root / "query_info.txt").write_bytes(b"\xff\xfe\x00"), r"query_info.txt cannot be read as text"),
    ],
)
def test_what_is_wrong_is_named(root, damage, message):
    damage(root)
    with pytest.raises(DataError, match=message):
        read_prw(root)


@pytest.mark.parametrize("length", [0, 1, 64, 127, 128, 132, 140, 160, 200])
def test_any_cut_of_an_annotation_is_an_error(root, length):
    path = root / "annotations" / "c1s1_000151.jpg.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    with pytest.raises(DataError, match=ANNOTATION):
        read_prw(root)


def test_camera_and_area():
    assert [camera_of(name) for name in ("c1s1_000151", "c6s3_1.jpg", "c12s1_5")] == [1, 6, 12]
    boxes = np.array([[0, 0, 1, 1], [2, 0, 0, 5], [np.nan, 0, 1, 1], [0, 0, np.inf, 1], [3, 3, 3, 9]], np.float32)
    assert has_area(boxes).tolist() == [True, False, False, False, False]
