"""How the time of a query grows with the gallery: cosine similarities with all of it, and the best of them.

A gallery of N people is [N,D] float32 in memory, searched in blocks by numpy with the threads its library has.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.ceilings import copy_rate
from psarm.benchmarks.growth_curves import GrowthCurve, GrowthPoint
from psarm.benchmarks.memory import free_memory
from psarm.console import err

BLOCK = 1 << 16
"""People whose similarities are taken at a time."""
TOP_K = 100
ROUNDS = 5
"""At least so many searches are timed, …"""
SECONDS = 0.5
"""… and more of them for so long: that of a small gallery is over before another process has given back the core."""
USABLE = 0.8
"""Of the free memory."""
Vectors = NDArray[np.float32]


def gallery_curve(embedding_size: int, threads: int, sizes: Sequence[int]) -> GrowthCurve:
    """Milliseconds of a query in galleries of `sizes` people; those that memory does not hold say so."""
    err.print("growth: gallery…")
    free = free_memory()
    held = [size for size in sizes if free is None or 4 * embedding_size * size <= USABLE * free]
    gallery = draw_gallery(max(held, default=0), embedding_size)
    query = gallery[:1].ravel()
    rate = copy_rate(threads)
    points = []
    for size in sizes:
        needed = 4 * embedding_size * size
        if size not in held:
            why = f"not measured: it takes {needed / 1e9:.1f} GB, and {(free or 0) / 1e9:.1f} GB of memory are free."
            points.append(GrowthPoint(size, f"{size:,}", failure=why))
            continue
        points.append(GrowthPoint(size, f"{size:,}", _milliseconds(query, gallery[:size]), needed / rate / 1e6))
    explanation = (
        f"every query reads the whole gallery once, {4 * embedding_size} bytes a person, at the rate of a copy; "
        "what fits into the processor's caches is read faster"
    )
    return GrowthCurve("gallery", f"numpy float32, {embedding_size} numbers a person", explanation, points)


def draw_gallery(people: int, size: int) -> Vectors:
    """Unit vectors [people,size]; drawn for the first block and repeated, which takes no less time to search."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((min(BLOCK, people), size), np.float32)
    block /= np.linalg.norm(block, axis=1, keepdims=True)
    gallery = np.empty((people, size), np.float32)
    for start in range(0, people, BLOCK):
        part = gallery[start : start + BLOCK]
        part[:] = block[: len(part)]
    return gallery


def search(query: Vectors, gallery: Vectors, top_k: int = TOP_K) -> NDArray[np.int64]:
    """Rows of `gallery` [N,D] most similar to `query` [D], best first; `top_k` of them."""
    best, rows = np.empty(0, np.float32), np.empty(0, np.int64)
    for start in range(0, len(gallery), BLOCK):
        similarities = gallery[start : start + BLOCK] @ query
        found = np.arange(len(similarities))
        if len(similarities) > top_k:
            found = np.argpartition(-similarities, top_k)[:top_k]
        best, rows = np.concatenate([best, similarities[found]]), np.concatenate([rows, start + found])
    order = np.argsort(-best, kind="stable")[:top_k]
    return rows[order]


def _milliseconds(query: Vectors, gallery: Vectors) -> float:
    search(query, gallery)
    seconds: list[float] = []
    while len(seconds) < ROUNDS or sum(seconds) < SECONDS:
        start = time.perf_counter()
        search(query, gallery)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))
