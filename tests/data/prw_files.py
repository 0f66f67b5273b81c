"""Write small data sets in PRW's on-disk format, by hand."""

import cv2
import numpy as np
from scipy.io import savemat

WIDTH, HEIGHT = 120, 90


def write_matrix(root, frame, matrix, variable="box_new"):
    savemat(str(root / "annotations" / f"{frame}.jpg.mat"), {variable: np.asarray(matrix)}, appendmat=False)


def write_list(root, split, frames):
    cells = np.empty((len(frames), 1), object)
    cells[:, 0] = frames
    savemat(root / f"frame_{split}.mat", {f"img_index_{split}": cells})


def write_queries(root, lines):
    (root / "query_info.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def write_image(root, frame, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), dtype=np.uint8)
    cv2.imwrite(str(root / "frames" / f"{frame}.jpg"), cv2.resize(pixels, (WIDTH, HEIGHT)))


def write_prw(root):
    """Two training and three test frames; everything in it is fine."""
    for folder in ("frames", "annotations"):
        (root / folder).mkdir(parents=True)
    for seed, frame in enumerate(["c1s1_000151", "c2s1_000151", "c1s2_000176", "c3s2_000176", "c6s3_000201"]):
        write_image(root, frame, seed)
    write_matrix(root, "c1s1_000151", [[478, 10, 20, 30, 40], [-2, 60, 5, 20, 50]])
    write_matrix(root, "c2s1_000151", [[932.0, 10.5, 20, 30, 40.25]], "anno_file")
    write_matrix(root, "c1s2_000176", [[7, 0, 0, 20, 40], [8, 50, 10, 30, 60], [-2, 90, 0, 20, 80]], "anno_previous")
    write_matrix(root, "c3s2_000176", [[7, 40, 10, 25, 50]])
    write_matrix(root, "c6s3_000201", np.zeros((0, 5)))
    write_list(root, "train", ["c1s1_000151", "c2s1_000151"])
    write_list(root, "test", ["c1s2_000176", "c3s2_000176", "c6s3_000201"])
    write_queries(root, ["7 40 10 25 50 c3s2_000176", "8 50.5 10 30 60 c1s2_000176"])
    return root
