"""A gallery of made people: three sources, visits whose similarities are known.

D is that of the toy bundle. Person p has the unit embedding `vectors[p]`; a row's is that, weighted by its score.
"""

from datetime import UTC, datetime, timedelta
from functools import partial

import cv2
import numpy as np
import toy_bundle as toy

from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import IndexedPeople, Source, SourceBatch
from psarm.runtime.manifest import read_manifest

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
FRAME_US = 500_000  # two frames a second are taken
SIZE = (160, 96)  # of frames of known time; of the others it is unknown
VECTORS = np.eye(toy.DIM, dtype=np.float32)


def frame_people(frame, people, time, vectors=VECTORS):
    """`people`: person → (visit number, score, box)."""
    visits, scores, boxes = zip(*people.values(), strict=True) if people else ((), (), ())
    return IndexedPeople(
        frame=frame,
        time=time,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        embeddings=np.array([vectors[p] * s for p, s in zip(people, scores, strict=True)], np.float32).reshape(
            -1, toy.DIM
        ),
        visits=np.array(visits, np.int64),
        thumbnails=tuple(thumbnail() for _ in people),
        size=SIZE if time else None,
    )


def thumbnail():
    return cv2.imencode(".jpg", np.full((24, 12, 3), 200, np.uint8))[1].tobytes()


def fill(where, bundle, folder, vectors=VECTORS, **settings):
    """Make a gallery of two videos, one of known time, and a list of pictures; returns its sources' names."""
    facts = read_manifest(bundle).embedding
    people = partial(frame_people, vectors=vectors)
    names = [str(folder / name) for name in ("door.mp4", "hall.mp4", "pictures")]
    with (
        Gallery.create(where, facts.fingerprint, toy.DIM, str(bundle), **settings) as gallery,
        gallery.writer() as writer,
    ):
        door = writer.add_source(Source(names[0], "door", "video", "d", {"fps": 2.0}, START, 10.0, 4)).source
        hall = writer.add_source(Source(names[1], "hall", "video", "h", {"fps": 2.0}, None, 10.0, 3)).source
        shots = writer.add_source(Source(names[2], "stairs", "pictures", "p", {}, None, None, 2)).source
        box = (10.0, 20.0, 30.0, 80.0)
        wide = (100.0, 20.0, 140.0, 80.0)
        at = [START + timedelta(microseconds=n * FRAME_US) for n in range(4)]
        writer.commit(
            [
                SourceBatch(
                    door,
                    (
                        people(0, {0: (0, 0.9, box)}, at[0]),
                        people(FRAME_US, {0: (0, 0.95, box), 1: (1, 0.8, wide)}, at[1]),
                        people(2 * FRAME_US, {}, at[2]),
                    ),
                    skips={"damaged": 1},
                    last_frame=3 * FRAME_US,
                    finished=True,
                ),
                SourceBatch(hall, (people(0, {0: (0, 0.7, wide), 2: (1, 0.6, box)}, None),)),
                SourceBatch(shots, (people(0, {3: (-1, 0.5, box)}, None), people(1, {2: (0, 0.8, box)}, None))),
            ]
        )
    return names
