"""A PRW data set of scenes that the toy bundle can search: a person is a coloured cell, the colour the identity."""

from pathlib import Path

import cv2
import numpy as np
import toy_bundle as toy
from scipy.io import savemat

COLOURS = {5: (255, 0, 0), 7: (255, 90, 0), 12: (255, 0, 120)}
STRANGER = (230, 60, 60)


def write_toy_prw(root: Path, gallery: int = 8, queries: int = 4) -> Path:
    """`gallery` test frames of two cameras with two identities and a stranger each, and one training frame."""
    (root / "frames").mkdir(parents=True)
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    splits = {"train": [], "test": []}
    lines = []
    for index in range(gallery + 1):
        name = f"c{index % 2 + 1}s1_{index:06d}"
        height, width = (96, 160) if index % 3 else (120, 170)
        cells = [int(cell) for cell in rng.choice(8, 3, replace=False)]
        identities = [int(i) for i in rng.choice(list(COLOURS), 2, replace=False)]
        people = dict(zip(cells, [*(COLOURS[i] for i in identities), STRANGER], strict=True))
        cv2.imwrite(str(root / "frames" / f"{name}.jpg"), toy.draw_scene(people, height, width))
        boxes = np.array([toy.cell_box(cell, height, width) for cell in cells])
        boxes[:, 2:] -= boxes[:, :2]
        rows = np.column_stack([[*identities, -2], boxes])
        savemat(root / "annotations" / f"{name}.jpg.mat", {"box_new": rows})
        splits["test" if index else "train"].append(name)
        if 0 < index <= queries:
            lines.append(f"{identities[0]} {' '.join(f'{value:.3f}' for value in boxes[0])} {name}")
    for split, names in splits.items():
        cells = np.array(names, dtype=object).reshape(-1, 1)
        savemat(root / f"frame_{split}.mat", {f"img_index_{split}": cells})
    (root / "query_info.txt").write_text("\n".join(lines) + "\n")
    return root
