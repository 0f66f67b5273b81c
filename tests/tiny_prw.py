"""A data set in PRW's on-disk format, small enough to train on in a second."""

from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

HEIGHT, WIDTH = 90, 160
IDENTITIES = (1, 2, 932)  # not 1…3, as PRW's own


def write_tiny_prw(root: Path, train: int = 4, test: int = 5, seed: int = 0) -> Path:
    """Noise with two bright upright rectangles a frame: a person with identity and a stranger.

    Two cameras take turns. Test identities are the training ones plus 1000, each in more than one frame; the first two
    test frames hold the queries. Rectangle sizes and places differ from frame to frame.
    """
    rng = np.random.default_rng(seed)
    (root / "frames").mkdir(parents=True)
    (root / "annotations").mkdir()
    splits: dict[str, list[str]] = {"train": [], "test": []}
    queries = []
    for index in range(train + test):
        split = "train" if index < train else "test"
        name = f"c{index % 2 + 1}s1_{index:06d}"
        splits[split].append(name)
        image = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        rows = []
        for column, identity in enumerate((IDENTITIES[index % 3] + 1000 * (split == "test"), -2)):
            x, y, w, h = 10 + 70 * column + index, 20, 24 + index % 3, 52
            image[y : y + h, x : x + w] = rng.integers(120, 255, 3)
            rows.append([identity, x, y, w, h])
        if split == "test" and len(queries) < 2:
            queries.append(f"{rows[0][0]} {' '.join(map(str, rows[0][1:]))} {name}")
        cv2.imwrite(str(root / "frames" / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
        savemat(str(root / "annotations" / f"{name}.jpg.mat"), {"box_new": np.array(rows, np.float64)})
    for split, names in splits.items():
        cells = np.array(names, dtype=object).reshape(-1, 1)
        savemat(str(root / f"frame_{split}.mat"), {f"img_index_{split}": cells})
    (root / "query_info.txt").write_text("\n".join(queries) + "\n")
    return root
