"""A process that reads a gallery until a file appears: `python -m psarm.benchmarks.drills.reader GALLERY STOP`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from psarm.benchmarks.drills.accounts import rows_of
from psarm.errors import PsarmError
from psarm.runtime.gallery.gallery import Gallery

TOP_K = 20


def read_until(where: Path, stop: Path) -> dict[str, float]:
    """Count, look for duplicates and search; what was seen. Once more after `stop` appeared."""
    counts: list[int] = []
    falls = duplicates = 0
    seconds: list[float] = []
    with Gallery.open(where, where.parent / f"{stop.name}.jsonl") as gallery:
        query = np.eye(1, gallery.facts.embedding_dim, dtype=np.float32)[0]
        last = False
        while not last:
            last = stop.exists()
            begin = time.perf_counter()
            people = gallery.store.read(
                lambda store: store.people.search().select(["source", "frame", "person"]).to_arrow()
            )
            hits = gallery.search_frames(query, TOP_K)
            visits = gallery.search(query, TOP_K)
            seconds.append(time.perf_counter() - begin)
            keys = rows_of(people)
            duplicates += len(keys) - len(np.unique(keys, axis=0))
            duplicates += len(hits) - len({(hit.source, hit.frame, hit.person) for hit in hits})
            numbers = [hit.visit for hit in visits if hit.visit is not None]
            duplicates += len(numbers) - len(set(numbers))
            falls += bool(counts) and len(keys) < counts[-1]
            counts.append(len(keys))
    return {
        "rounds": len(counts),
        "people": counts[-1],
        "different_counts": len(set(counts)),
        "falls": falls,
        "duplicates": duplicates,
        "median_round_ms": round(1000 * median(seconds), 1),
        "longest_round_ms": round(1000 * max(seconds), 1),
    }


if __name__ == "__main__":
    try:
        print(json.dumps(read_until(Path(sys.argv[1]), Path(sys.argv[2]))))
    except PsarmError as error:
        sys.exit(f"Error: {error}")
