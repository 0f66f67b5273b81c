"""A data set in PRW's on-disk format, small enough to train on in a second."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

SIZE = (90, 160)  # height, width


def write_prw(root: Path, train: int = 4, test: int = 3, seed: int = 0) -> Path:
    """Noise with bright upright rectangles: identity 1…3 (932 in place of 3), one of them and a stranger a frame."""
    rng = np.random.default_rng(seed)
    identities = [1, 2, 932]
    (root / "frames").mkdir(parents=True)
    (root / "annotations").mkdir()
    splits: dict[str, list[str]] = {"train": [], "test": []}
    queries = []
    for index in range(train + test):
        split = "train" if index < train else "test"
        name = f"c{index % 2 + 1}s1_{index:06d}"
        splits[split].append(name)
        image = rng.integers(0, 80, (*SIZE, 3), dtype=np.uint8)
        rows = []
        for column, identity in enumerate([identities[index % 3] + (1000 if split == "test" else 0), -2]):
            x, y, w, h = 10 + 70 * column + index, 20, 24, 52
            image[y : y + h, x : x + w] = rng.integers(120, 255, 3)
            rows.append([identity, x, y, w, h])
        if split == "test" and len(queries) < 2:
            queries.append(f"{rows[0][0]} {' '.join(map(str, rows[0][1:]))} {name}")
        cv2.imwrite(str(root / "frames" / f"{name}.jpg"), image)
        savemat(str(root / "annotations" / f"{name}.jpg.mat"), {"box_new": np.array(rows, dtype=np.float64)})
    for split, names in splits.items():
        cells = np.array(names, dtype=object).reshape(-1, 1)
        savemat(str(root / f"frame_{split}.mat"), {f"img_index_{split}": cells})
    (root / "query_info.txt").write_text("\n".join(queries) + "\n")
    return root


@pytest.fixture(scope="session")
def prw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prw(tmp_path_factory.mktemp("data") / "prw")
