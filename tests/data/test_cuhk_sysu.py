import numpy as np
import pytest
from cuhk_disk import (
    BOXES,
    LISTS,
    POOL,
    TEST,
    TRAIN,
    cells,
    structs,
    write_cuhk,
    write_images,
    write_picture,
    write_pool,
    write_protocol,
    write_train,
)
from scipy.io import loadmat, savemat

from psarm.data.cuhk_sysu import read_cuhk_sysu
from psarm.data.types import UNLABELLED
from psarm.errors import DataError


@pytest.fixture
def root(tmp_path):
    return write_cuhk(tmp_path / "CUHK-SYSU")


def test_reads_frames_queries_and_galleries(root):
    dataset = read_cuhk_sysu(root)
    assert dataset.name == "cuhk-sysu" and dataset.root == root
    assert [frame.name for frame in dataset.train] == ["s2.jpg", "s3.jpg", "s6.jpg"]
    assert [frame.name for frame in dataset.gallery] == POOL
    assert all(frame.path.is_file() and frame.camera == 0 for frame in dataset.train + dataset.gallery)
    first = dataset.train[0]
    assert first.boxes.dtype == np.float32 and first.identities.dtype == np.int64
    assert first.boxes.tolist() == [[10, 20, 40, 60], [60, 5, 80, 55]]  # the box without width is left out
    assert first.identities.tolist() == [21, UNLABELLED]
    assert dataset.train[2].boxes.shape == (0, 4) and dataset.train[2].identities.shape == (0,)
    assert {frame.name: frame.identities.tolist() for frame in dataset.gallery} == {
        "s4.jpg": [7, 900],
        "s1.jpg": [7, UNLABELLED],
        "s7.jpg": [900, UNLABELLED],  # of equal boxes the first
        "s5.jpg": [UNLABELLED],
    }
    assert dataset.train_labels == {21: 0}
    assert [(query.name, query.identity, query.camera) for query in dataset.queries] == [
        ("s1.jpg", 7, 0),
        ("s4.jpg", 900, 0),
    ]
    assert dataset.queries[0].box.tolist() == [1, 2, 21, 42] and dataset.queries[0].box.dtype == np.float32
    assert dataset.queries[0].path == dataset.gallery[1].path
    galleries = {name: [rows.tolist() for rows in lists] for name, lists in dataset.galleries.items()}
    assert galleries == {"50": [[0, 2], [2, 1]], "100": [[0, 2, 3], [2, 1]]}
    assert dataset.galleries["100"][0].dtype == np.int64
    located = {name: [(p.items.tolist(), p.boxes.tolist()) for p in people] for name, people in dataset.located.items()}
    assert located["50"] == located["100"] == [([0], [[40, 10, 65, 60]]), ([0], [[31, 3, 56, 53]])]
    assert dataset.located["100"][0].items.dtype == np.int64 and dataset.located["100"][0].boxes.dtype == np.float32
    assert dataset.default_gallery == "100" and dataset.cbgm == (10, 3)


def test_every_protocol_there_is_becomes_a_gallery(root):
    for size in (4000, 500):
        write_protocol(root, size)
    (root / LISTS / "TestG50.mat").unlink()
    assert list(read_cuhk_sysu(root).galleries) == ["100", "500", "4000"]


def published_reading(root):
    """Boxes and identities as the released code takes them from the files, step by step."""
    boxes, identities = {}, {}
    for name, _, own in loadmat(root / "annotation/Images.mat")["Img"].squeeze():
        name = str(name[0])
        matrix = np.asarray([box[0] for box in own[0]]).reshape(-1, 4).astype(float) if own.size else np.zeros((0, 4))
        boxes[name] = matrix[(matrix[:, 2] > 0) & (matrix[:, 3] > 0)].astype(np.int32)
        identities[name] = [UNLABELLED] * len(boxes[name])

    def name_box(image, box, identity):
        for row, own in enumerate(boxes[image]):
            if (own == box).all():
                identities[image][row] = identity
                return

    for person in loadmat(root / LISTS / "Train.mat")["Train"].squeeze(axis=1):
        idname, _, scenes = person[0, 0]
        for image, box, _ in scenes[0]:
            name_box(str(image[0]), box.squeeze().astype(np.int32), int(idname[0][1:]))
    for item in loadmat(root / LISTS / "TestG100.mat")["TestG100"][0]:
        identity = int(item["Query"]["idname"][0, 0][0][1:])
        name_box(str(item["Query"]["imname"][0, 0][0]), item["Query"]["idlocate"][0, 0][0].astype(np.int32), identity)
        for image, box, _ in item["Gallery"][0]:
            if box.size:
                name_box(str(image[0]), box.squeeze().astype(np.int32), identity)
    for own in boxes.values():
        own[:, 2:] += own[:, :2]
    return boxes, identities


def random_lists(rng):
    """Boxes of 30 images, half a pixel off here and there and some twice, and people in them."""
    boxes = {}
    for number in rng.permutation(300)[:30]:
        own = rng.integers(0, 90, (rng.integers(1, 6), 4)).astype(float)
        own[:, :2] -= rng.integers(0, 2, (len(own), 2)) * 0.5
        own[:, 2:] += rng.integers(0, 2, (len(own), 2)) * 0.5
        boxes[f"s{number}.jpg"] = [*own.tolist(), own[0].tolist()]
    names = list(boxes)
    good = {name: [box for box in own if min(int(box[2]), int(box[3])) > 0] for name, own in boxes.items()}

    def places(pool):
        with_box = [name for name in pool if good[name]]
        chosen = rng.choice(with_box, 3, replace=False)
        return [(str(name), good[name][rng.integers(len(good[name]))]) for name in chosen]

    train = [(f"p{3 * i + 4}", places(names[:15])) for i in range(8)]
    test = []
    for i in range(8):
        query, *found = places(names[15:])
        others = [(name, None) for name in names[15:] if name not in {query[0], *(place[0] for place in found)}]
        test.append((f"p{1000 + 7 * i}", query, [*found, *others[: rng.integers(8)]]))
    return boxes, names[15:], train, test


@pytest.mark.parametrize("seed", range(5))
def test_ground_truth_is_that_of_the_published_figures(root, seed):
    boxes, pool, train, test = random_lists(np.random.default_rng(seed))
    write_images(root, boxes)
    write_pool(root, pool)
    write_train(root, train)
    write_protocol(root, 100, test)
    (root / LISTS / "TestG50.mat").unlink()
    for name in boxes:
        write_picture(root, name)
    expected_boxes, expected = published_reading(root)
    dataset = read_cuhk_sysu(root)
    assert {frame.name for frame in dataset.train} == set(boxes) - set(pool)
    labelled = 0
    for frame in dataset.train + dataset.gallery:
        real = (expected_boxes[frame.name][:, 2:] > expected_boxes[frame.name][:, :2]).all(axis=1)
        np.testing.assert_array_equal(frame.boxes, expected_boxes[frame.name][real])
        assert frame.identities.tolist() == np.array(expected[frame.name])[real].tolist()
        labelled += int((frame.identities != UNLABELLED).sum())
    assert labelled > 25
    for (name, query, gallery), read, rows in zip(test, dataset.queries, dataset.galleries["100"], strict=True):
        assert (f"p{read.identity}", read.name) == (name, query[0])
        assert [dataset.gallery[row].name for row in rows] == [image for image, _ in gallery]
    for (_, _, gallery), person in zip(test, dataset.located["100"], strict=True):
        expected = [(i, np.array(box).astype(np.int32)) for i, (_, box) in enumerate(gallery) if box is not None]
        assert person.items.tolist() == [item for item, _ in expected]
        assert person.boxes.tolist() == [[x, y, x + w, y + h] for _, (x, y, w, h) in expected]


def test_listed_boxes_without_a_place_are_left_out(root, capsys):
    p7, p900 = TEST
    before = read_cuhk_sysu(root)
    assert capsys.readouterr().err == ""
    lost = [("s3.jpg", [1, 1, 9, 9]), ("s8.jpg", [1, 1, 9, 9]), ("s5.jpg", [30, 3, 25, 50]), ("s2.jpg", [5, 5, 0, 9])]
    write_train(root, [(name, [*places, *lost]) for name, places in TRAIN])
    found = [("s5.jpg", None), ("s7.jpg", [1, 2, 3, 4]), ("s4.jpg", [70, 12, 25, 50])]
    for size in (50, 100):
        write_protocol(root, size, [("p7", ("s1.jpg", [1, 2, 20, 41]), p7[2]), ("p900", p900[1], found)])
    for _ in range(2):  # from the files, then from the cache
        dataset = read_cuhk_sysu(root)
        said = " ".join(capsys.readouterr().err.split())
        assert "listed boxes left out: 8 (not in Images.mat, or" in said and "psarm data check" in said
        for ours, theirs in zip(dataset.train, before.train, strict=True):
            assert ours.identities.tolist() == theirs.identities.tolist()
        assert {frame.name: frame.identities.tolist() for frame in dataset.gallery} == {
            "s4.jpg": [7, 900],
            "s1.jpg": [UNLABELLED, UNLABELLED],
            "s7.jpg": [UNLABELLED, UNLABELLED],
            "s5.jpg": [UNLABELLED],
        }
        assert dataset.queries[0].box.tolist() == [1, 2, 21, 43]
        person = dataset.located["100"][1]  # the query's own image among them
        assert person.items.tolist() == [1, 2] and person.boxes.tolist() == [[1, 2, 4, 6], [70, 12, 95, 62]]


def remove(path):
    return lambda root: (root / path).unlink()


def cut(path):
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:-60])


def save(path, **content):
    return lambda root: savemat(root / path, content)


def images(**changed):
    return lambda root: write_images(root, BOXES | {f"{name}.jpg": own for name, own in changed.items()})


def protocol(*test, size=100):
    return lambda root: write_protocol(root, size, test)


def images_with(**fields):
    """Images.mat of one image whose fields are what is given."""
    given = {"imname": "s2.jpg", "nAppear": 0, "box": np.zeros((0, 0))} | fields
    return save("annotation/Images.mat", Img=structs(list(given), [tuple(given.values())]))


P7, P900 = TEST
SCENE = structs(["imname", "idlocate", "ishard"], [("s3.jpg", np.ones((1, 4)), 0)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("annotation/Images.mat"), r"not a CUHK-SYSU data set: annotation/Images.mat not found"),
        (remove("annotation/pool.mat"), r"annotation/pool.mat not found"),
        (remove(f"{LISTS}/Train.mat"), r"Train.mat not found .*data synth --format cuhk-sysu"),
        (remove(f"{LISTS}/TestG100.mat"), r"annotation/test/train_test/TestG100.mat not found"),
        (lambda root: (root / "Image").rename(root / "image"), r"Image/SSM/ not found"),
        (cut("annotation/Images.mat"), r"Images.mat cannot be read as a MATLAB file"),
        (cut("annotation/pool.mat"), r"pool.mat cannot be read as a MATLAB file"),
        (cut(f"{LISTS}/Train.mat"), r"Train.mat cannot be read as a MATLAB file"),
        (cut(f"{LISTS}/TestG100.mat"), r"TestG100.mat: the file ends early"),
        (lambda root: (root / LISTS / "TestG50.mat").write_bytes(b"x"), r"TestG50.mat: expected a MATLAB 5 file"),
        (save("annotation/Images.mat", Image=1), r"Images.mat has no variable Img \(found: Image\)"),
        (save("annotation/pool.mat", Pool=1), r"pool.mat has no variable pool \(found: Pool\)"),
        (save(f"{LISTS}/Train.mat", x=1), r"Train.mat has no variable Train"),
        (save(f"{LISTS}/TestG100.mat", TestG50=1), r"TestG100.mat: it has no variable TestG100 \(found: TestG50\)"),
        (save("annotation/Images.mat", Img=np.ones((3, 3))), r"Img should be a struct with imname, box, but it is"),
        (images_with(imname=5), r"Images.mat: the name of image 0 should be text, but it is"),
        (images_with(box=np.ones((2, 4))), r"the boxes of s2.jpg should be a struct with idlocate"),
        (images(s3=[[1, 2, 3]]), r"Images.mat: a box of s3.jpg should be four finite numbers .* \[1, 2, 3\]"),
        (images(s3=[[1.0, 2, np.nan, 4]]), r"a box of s3.jpg should be four finite numbers .* \[1, 2, nan, 4\]"),
        (images_with(box=structs(["idlocate"], [("text",)])), r"a box of s2.jpg should be four numbers"),
        (save("annotation/pool.mat", pool=np.ones((2, 1))), r"pool.mat: entry 0 of pool should be text"),
        (save("annotation/pool.mat", pool=cells([])), r"pool.mat: pool is empty"),
        (lambda root: write_pool(root, [*POOL, "s1.jpg"]), r"pool.mat: s1.jpg is listed more than once"),
        (lambda root: write_pool(root, [*POOL, "s9.jpg"]), r"pool.mat lists s9.jpg, which is not in Images.mat"),
        (remove("Image/SSM/s5.jpg"), r"Image/SSM/s5.jpg is in Images.mat but missing; .*data check"),
        (save(f"{LISTS}/Train.mat", Train=np.ones((2, 1))), r"entry 0 of Train should be a struct with idname, scene"),
        (lambda root: write_train(root, [("Anna", TRAIN[0][1])]), r"Train.mat: 'Anna' names no identity"),
        (save(f"{LISTS}/Train.mat", Train=cells([structs(["idname", "scene"], [("p1", SCENE)] * 2)])), r"it is 2"),
        (save(f"{LISTS}/TestG100.mat", TestG100=np.ones((1, 2))), r"100.mat: something that should be a struct"),
        (save(f"{LISTS}/TestG100.mat", TestG100=structs(["Query"], [(1,)])), r"query 0: expected the fields Query and"),
        (
            save(f"{LISTS}/TestG100.mat", TestG100=structs(["Query", "Gallery"], [(1, 1)])),
            r"TestG100.mat: query 0: .*st",
        ),
        (
            save(f"{LISTS}/TestG100.mat", TestG100=structs(["Query", "Gallery"], [(SCENE, SCENE)])),
            r"query 0: a struct has no field idname",
        ),
        (
            protocol(P7, ("p900", ("s2.jpg", [10, 20, 30, 40]), P900[2])),
            r"query 1: its image s2.jpg is not in pool",
        ),
        (
            protocol(P7, ("p900", P900[1], [("s3.jpg", None)])),
            r"100.mat: query 1: its image s3.jpg is not in pool",
        ),
        (protocol(("7a", P7[1], P7[2]), P900), r"TestG100.mat: query 0: '7a' names no identity"),
        (protocol(("p7", ("s1.jpg", None), P7[2]), P900), r"query 0: a box of p7 should be four finite numbers"),
        (
            protocol(("p7", ("s1.jpg", [1.0, np.inf, 20, 40]), P7[2]), P900),
            r"query 0: a box of p7 .* \[1, inf, 20",
        ),
        (protocol(("p7", ("s1.jpg", [1, 2, 20, 41]), P7[2]), P900), r"TestG.*.mat: .*p7"),
        (protocol(P900, P7, size=50), r"TestG50.mat: query 0 is p900 in s4.jpg; every TestG file should list"),
        (protocol(P7, size=50), r"TestG50.mat has 1 queries, not 2; every TestG file"),
    ],
)
def test_what_is_wrong_is_named(root, damage, message):
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        read_cuhk_sysu(root)
    assert str(caught.value).count(str(root)) <= 2 and "\n" not in str(caught.value)
    with pytest.raises(DataError, match=message):
        read_cuhk_sysu(root)  # nothing wrong was cached


def test_not_a_folder(tmp_path):
    with pytest.raises(DataError, match="not a directory"):
        read_cuhk_sysu(tmp_path / "nowhere")


def test_images_and_lists_may_be_empty(root):
    write_train(root, [])
    write_protocol(root, 100, [])
    write_protocol(root, 50, [])
    dataset = read_cuhk_sysu(root)
    assert dataset.train_labels == {} and dataset.queries == []
    assert dataset.galleries == dataset.located == {"50": [], "100": []}
