"""Tiny labelled footage: drawn videos, MOT label files, COCO files, and a converted data set written by hand."""

import json

import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return cv2.resize(pixels, (WIDTH, HEIGHT))


def write_video(path, frames, frame_rate=10.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), frame_rate, (WIDTH, HEIGHT))
    for number in range(frames):
        writer.write(picture(number))
    writer.release()
    return path


def write_labels(path, rows):
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


def write_sequence(folder, frames, rows, info="[Sequence]\nname=x\nimDir=img1\nframeRate=10\nimExt=.jpg\n"):
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    for number in range(1, frames + 1):
        cv2.imwrite(str(folder / "img1" / f"{number:06d}.jpg"), picture(number))
    write_labels(folder / "gt" / "gt.txt", rows)
    (folder / "seqinfo.ini").write_text(info)
    return folder


# Person 7 in tracks 1 and 2, person 9 in track 3, over ten frames.
ROWS = [
    *((frame, 1, 10, 10, 8, 20, 1) for frame in (1, 2)),
    *((frame, 3, 30, 8, 10, 22, 1) for frame in range(1, 11)),
    *((frame, 2, 40 + frame, 10, 8, 20, 1) for frame in (8, 9, 10)),
]
PEOPLE = {"track_to_person": {"1": 7, "2": 7, "3": 9}}


def write_clip(folder):
    """A video of ten frames, gt.txt and people.json in `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return (
        write_video(folder / "clip.avi", 10),
        write_labels(folder / "gt.txt", ROWS),
        write_json(folder / "people.json", PEOPLE),
    )


def coco_content():
    """COCO labels of six pictures: person 7 in the first two and the last two, person 9 in all."""
    images, annotations = [], []
    for number in range(1, 7):
        images.append({"id": 10 * number, "file_name": f"f{number}.jpg", "width": WIDTH, "height": HEIGHT})
        people = [(9, [30, 8, 10, 22])] + ([(7, [10, 10, 8, 20])] if number not in (3, 4) else [])
        for identity, bbox in people:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 * number,
                    "category_id": 3,
                    "bbox": bbox,
                    "iscrowd": 0,
                    "attributes": {"person_id": identity, "track_id": identity + (100 if number > 3 else 0)},
                }
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "person"}]}


def write_coco(folder, content=None):
    """The pictures and labels.json of `coco_content`; the two paths."""
    content = coco_content() if content is None else content
    (folder / "pictures").mkdir(parents=True)
    for number in range(1, 7):
        cv2.imwrite(str(folder / "pictures" / f"f{number}.jpg"), picture(number))
    return write_json(folder / "labels.json", content), folder / "pictures"


def visits_content():
    """The two JSON files of a converted data set of four frames, two of them for training."""
    images = [
        {
            "id": number,
            "file_name": f"c1s1_{number:06d}.jpg",
            "width": WIDTH,
            "height": HEIGHT,
            "camera": 1,
            "source": "clip.avi",
            "frame": number,
            "time": None if number == 4 else number / 10,
            "split": "train" if number < 3 else "gallery",
        }
        for number in (1, 2, 3, 4)
    ]
    people = [(1, 7, 1), (1, -1, -1), (2, 900, 2), (3, 7, 1), (4, 7, 3), (4, 900, 2)]
    annotations = [
        {
            "id": row,
            "image_id": image,
            "category_id": 1,
            "bbox": [row, 2.5, 10, 20],
            "area": 200,
            "iscrowd": 0,
            "identity": identity,
            "visit": visit,
        }
        for row, (image, identity, visit) in enumerate(people, start=1)
    ]
    query = {"image_id": 1, "file_name": "c1s1_000001.jpg", "bbox": [1, 2.5, 10, 20], "identity": 7, "visit": 1}
    return {"info": {}, "images": images, "annotations": annotations, "categories": []}, [query]


def write_visits(root, annotations=None, queries=None):
    """`visits_content`, or the given content, with its pictures."""
    written, asked = visits_content()
    (root / "images").mkdir(parents=True)
    for number in (1, 2, 3, 4):
        cv2.imwrite(str(root / "images" / f"c1s1_{number:06d}.jpg"), picture(number))
    write_json(root / "annotations.json", written if annotations is None else annotations)
    write_json(root / "queries.json", asked if queries is None else queries)
    return root
