"""Check a data set that `psarm data convert` wrote, file by file.

People who are in training and gallery alike are no finding here: it is one place's footage, cut in time.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from psarm.data import visits
from psarm.data.check import CheckReport, Findings, box_problem, check_images, check_matches
from psarm.data.statistics import describe, frames_with_person
from psarm.data.types import Query


def check_visits(root: str | Path) -> CheckReport:
    """Read every entry and image of the converted data set under `root`.

    Raises:
        DataError: `root` is no such data set, or one of its lists is missing or no JSON.
    """
    root = Path(root)
    records = visits.read_records(root)
    findings = Findings(root)
    for problem in records.problems:
        findings.error(problem.path, problem.message)
    path, folder = root / visits.ANNOTATIONS, root / visits.IMAGES
    names = [image.file_name for image in records.images]
    sizes = check_images(findings, folder, names, set(names))
    for image in records.images:
        size = sizes.get(image.file_name)
        if size is not None and size != (image.width, image.height):
            said = f"{image.width}x{image.height}"
            findings.error(path, f"{image.file_name} is said to be {said}, but it is {size[0]}x{size[1]}.")
        for person in records.boxes[image.id]:
            box_fault = box_problem(person.box.astype(np.float64), size)
            if box_fault is not None:
                report = findings.error if box_fault[0] else findings.warning
                report(path, f"{image.file_name}: {box_fault[1]}")
    train, gallery = (records.frames(split) for split in visits.SPLITS)
    queries = [
        Query(query.image.file_name, query.image.path, query.image.camera, query.box, query.identity)
        for query in records.queries
    ]
    galleries = records.galleries()
    showing = frames_with_person(gallery, queries, galleries)
    check_matches(findings, root / visits.QUERIES, queries, showing)
    return CheckReport(
        dataset=visits.NAME,
        root=root,
        statistics=describe(train, gallery, queries, showing, Counter(sizes.values())),
        errors=findings.errors,
        warnings=findings.warnings,
        train=train,
        gallery=gallery,
        galleries={visits.NAME: galleries},
    )
