"""Write small data sets in CUHK-SYSU's on-disk format, by hand, nested as the official files are."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.io import savemat

WIDTH, HEIGHT = 120, 90
LISTS = "annotation/test/train_test"
# Image → boxes x, y, w, h. s2, s3 and s6 are for training.
BOXES = {
    "s2.jpg": [[10, 20, 30, 40], [60, 5, 20, 50], [5, 5, 0, 9]],
    "s3.jpg": [[12, 20, 30, 40]],
    "s6.jpg": [],
    "s1.jpg": [[1, 2, 20, 40], [50, 10, 30, 60]],
    "s4.jpg": [[40, 10, 25, 50], [70, 12, 25, 50]],
    "s5.jpg": [[30, 3, 25, 50]],
    "s7.jpg": [[31, 3, 25, 50], [31, 3, 25, 50]],
}
POOL = ["s4.jpg", "s1.jpg", "s7.jpg", "s5.jpg"]
# Name, (image, box) … of the training identities.
TRAIN = [("p21", [("s2.jpg", [10, 20, 30, 40]), ("s3.jpg", [12, 20, 30, 40])])]
# Name, query, gallery: (image, box or None) …
TEST = [
    ("p7", ("s1.jpg", [1, 2, 20, 40]), [("s4.jpg", [40, 10, 25, 50]), ("s7.jpg", None), ("s5.jpg", None)]),
    ("p900", ("s4.jpg", [70, 12, 25, 50]), [("s7.jpg", [31, 3, 25, 50]), ("s1.jpg", None)]),
]


def structs(fields, rows):
    array = np.empty((1, len(rows)), [(field, object) for field in fields])
    for i, row in enumerate(rows):
        array[0, i] = row
    return array


def cells(values):
    array = np.empty((len(values), 1), object)
    for i, value in enumerate(values):
        array[i, 0] = value
    return array


def box_matrix(box):
    """As MATLAB stores a box: the smallest integers that hold it; no box is 1 by 0."""
    if box is None:
        return np.zeros((1, 0))
    matrix = np.array([box])
    return matrix.astype(np.min_scalar_type(int(matrix.max()))) if matrix.dtype.kind == "i" else matrix


def write_images(root, boxes=BOXES):
    rows = []
    for name, own in boxes.items():
        inner = structs(["idlocate", "ishard"], [(box_matrix(box), 0) for box in own])
        rows.append((name, len(own), inner if own else np.zeros((0, 0))))
    savemat(root / "annotation/Images.mat", {"Img": structs(["imname", "nAppear", "box"], rows)})


def write_pool(root, names=POOL):
    savemat(root / "annotation/pool.mat", {"pool": cells(names)})


def scenes(places):
    return structs(["imname", "idlocate", "ishard"], [(name, box_matrix(box), 0) for name, box in places])


def write_train(root, train=TRAIN):
    people = [structs(["idname", "nAppear", "scene"], [(name, len(places), scenes(places))]) for name, places in train]
    savemat(root / LISTS / "Train.mat", {"Train": cells(people)})


def write_protocol(root, size=100, test=TEST, compress=True, **replaced):
    rows = []
    for name, (image, box), gallery in test:
        query = structs(["imname", "idlocate", "ishard", "idname"], [(image, box_matrix(box), 0, name)])
        rows.append((query, scenes(gallery)))
    content = {f"TestG{size}": structs(["Query", "Gallery"], rows)} | replaced
    savemat(root / LISTS / f"TestG{size}.mat", content, do_compression=compress)


def write_picture(root, name, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), dtype=np.uint8)
    cv2.imwrite(str(root / "Image/SSM" / name), cv2.resize(pixels, (WIDTH, HEIGHT)))


def write_cuhk(root):
    """Three training and four gallery images, two queries, protocols of 50 and 100; everything in it is fine."""
    for folder in ("Image/SSM", LISTS):
        (root / folder).mkdir(parents=True)
    for seed, name in enumerate(BOXES):
        write_picture(root, name, seed)
    write_images(root)
    write_pool(root)
    write_train(root)
    write_protocol(root, 50, [(name, query, gallery[:2]) for name, query, gallery in TEST])
    write_protocol(root, 100)
    return root
