"""Time reading the annotations of data sets of PRW's and CUHK-SYSU's size, the first time and from the cache.

    python -m psarm.benchmarks.annotation_cache --json benchmarks/results/annotation_cache.json

Boxes and galleries are drawn at random (seeded), images are empty files: readers only look whether they are there.
Every reading is a process of its own; the files lie in memory already, as they have just been written.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.script import run
from psarm.console import out, track
from psarm.data.cuhk_sysu import IMAGES, PICTURES, POOL, PROTOCOLS, TRAIN
from psarm.data.prw import ANNOTATIONS, FRAME_LISTS, FRAMES, QUERIES
from psarm.data.readers import read_dataset
from psarm.files import write_json
from psarm.machine import describe_machine, package_versions


@dataclass(frozen=True)
class Size:
    """How much there is in a data set."""

    train: int
    """Images for training."""
    test: int
    boxes: float
    """Per image, on average."""
    queries: int
    identities: int
    """For training; in CUHK-SYSU each is in two images."""


SIZES = {
    "prw": Size(train=5704, test=6112, boxes=3.6, queries=2057, identities=483),
    "cuhk-sysu": Size(train=11206, test=6978, boxes=5.3, queries=2900, identities=5532),
}


def write_prw(root: Path, size: Size) -> None:
    """PRW's files, images empty."""
    rng = np.random.default_rng(0)
    for folder in (FRAMES, ANNOTATIONS):
        (root / folder).mkdir(parents=True)
    names = [f"c{i % 6 + 1}s{i % 3 + 1}_{i:06d}" for i in range(size.train + size.test)]
    for name in track(names, "Writing PRW"):
        rows = rng.uniform(1, 500, (max(1, rng.poisson(size.boxes)), 5))
        rows[:, 0] = rng.integers(1, size.identities, len(rows))
        savemat(str(root / ANNOTATIONS / f"{name}.jpg.mat"), {"box_new": rows}, appendmat=False)
        (root / FRAMES / f"{name}.jpg").touch()
    for (file, variable), part in zip(FRAME_LISTS.values(), (names[: size.train], names[size.train :]), strict=True):
        savemat(str(root / file), {variable: _cells(part)})
    asked = rng.choice(names[size.train :], size.queries)
    lines = [f"{row % size.identities + 1} 10 10 50 100 {name}\n" for row, name in enumerate(asked)]
    (root / QUERIES).write_text("".join(lines))


def write_cuhk_sysu(root: Path, size: Size) -> None:
    """CUHK-SYSU's files but Person.mat, images empty; every query is in one image of its galleries."""
    rng = np.random.default_rng(0)
    for folder in (root / PICTURES, (root / TRAIN).parent):
        folder.mkdir(parents=True)
    names = [f"s{i + 1}.jpg" for i in range(size.train + size.test)]
    counts = np.maximum(1, rng.poisson(size.boxes, len(names)))
    boxes = [rng.integers(1, 500, (count, 4)).astype(np.uint16) for count in counts]
    rows = []
    for name, own in zip(track(names, "Writing CUHK-SYSU"), boxes, strict=True):
        (root / PICTURES / name).touch()
        rows.append((name, len(own), _structs(["idlocate", "ishard"], [(box[None], 0) for box in own])))
    savemat(str(root / IMAGES), {"Img": _structs(["imname", "nAppear", "box"], rows)}, do_compression=True)
    pool, first_boxes = names[size.train :], [own[0] for own in boxes[size.train :]]
    savemat(str(root / POOL), {"pool": _cells(pool)}, do_compression=True)
    people = []
    for identity in range(size.identities):
        where = rng.choice(size.train, 2, replace=False)
        scenes = _structs(["imname", "idlocate", "ishard"], [(names[i], boxes[i][:1], 0) for i in where])
        people.append(_structs(["idname", "nAppear", "scene"], [(f"p{2 * identity}", 2, scenes)]))
    savemat(str(root / TRAIN), {"Train": _cells(people)}, do_compression=True)
    for length, file in PROTOCOLS.items():
        if int(length) < size.test:
            _write_protocol(root / file, pool, first_boxes, size.queries, int(length))


def _cells(values: Sequence[object]) -> NDArray[np.object_]:
    cells = np.empty((len(values), 1), object)
    for row, value in enumerate(values):
        cells[row, 0] = value
    return cells


def _structs(fields: list[str], rows: Sequence[tuple[object, ...]]) -> NDArray[np.object_]:
    array = np.empty((1, len(rows)), [(field, object) for field in fields])
    for column, row in enumerate(rows):
        array[0, column] = row
    return array


def _write_protocol(path: Path, pool: list[str], boxes: list[NDArray[np.uint16]], queries: int, length: int) -> None:
    """A TestG file byte by byte: scipy would need an hour and 30 GB for the largest."""
    plain = [_record(name, None) for name in pool]

    def searches() -> Iterator[bytes]:
        rng = np.random.default_rng(length)
        for row in range(queries):
            own, found = 2 * row % len(pool), (2 * row + 1) % len(pool)
            order = rng.permutation(len(pool))
            others = order[(order != own) & (order != found)][: length - 1].tolist()
            query = _record(pool[own], boxes[own]) + _text(f"p{2 * row + 1}")
            gallery = [_record(pool[found], boxes[found]), *(plain[i] for i in others)]
            fields = ["imname", "idlocate", "ishard"]
            yield _struct([*fields, "idname"], 1, query) + _struct(fields, length, b"".join(gallery))

    head = _struct_head(["Query", "Gallery"], queries, path.stem)
    size = len(head) + sum(map(len, searches()))
    packer = zlib.compressobj()
    with path.open("wb") as file:
        file.write(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, 0))
        file.write(packer.compress(struct.pack("<II", 14, size) + head))
        for search in track(searches(), f"Writing {path.name}", total=queries):
            file.write(packer.compress(search))
        file.write(packer.flush())
        packed = file.tell() - 136
        file.seek(132)
        file.write(struct.pack("<I", packed))


def _record(name: str, box: NDArray[np.uint16] | None) -> bytes:
    """imname, idlocate and ishard of an image; without the person the latter two are empty."""
    if box is None:
        return _text(name) + 2 * _matrix(6, 1, 0, _element(9, b""))
    return _text(name) + _matrix(6, 1, 4, _element(4, box.tobytes())) + _matrix(6, 1, 1, _element(2, b"\0"))


def _text(text: str) -> bytes:
    return _matrix(4, 1, len(text), _element(16, text.encode()))


def _struct(fields: list[str], count: int, values: bytes) -> bytes:
    content = _struct_head(fields, count) + values
    return struct.pack("<II", 14, len(content)) + content


def _struct_head(fields: list[str], count: int, name: str = "") -> bytes:
    names = b"".join(field.encode().ljust(32, b"\0") for field in fields)
    return _matrix_head(2, 1, count, name) + struct.pack("<HHI", 5, 4, 32) + _element(1, names)


def _matrix(kind: int, rows: int, columns: int, content: bytes) -> bytes:
    return _element(14, _matrix_head(kind, rows, columns) + content)


def _matrix_head(kind: int, rows: int, columns: int, name: str = "") -> bytes:
    flags, dimensions = struct.pack("<II", kind, 0), struct.pack("<ii", rows, columns)
    return _element(6, flags) + _element(5, dimensions) + _element(1, name.encode())


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def timed_read(name: str, root: Path) -> dict[str, float]:
    """Wall and CPU seconds that reading takes, and the most memory this process ever had."""
    start, cpu_start = time.perf_counter(), time.process_time()
    dataset = read_dataset(name, root)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    assert dataset.train and dataset.queries
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_memory_mib": round(peak / 2**20),
    }


def measure(name: str, size: Size, folder: Path, repeats: int) -> dict[str, Any]:
    """Write a data set into a folder; read it without cache and from the cache, `repeats` times each."""
    root, cache = folder / name, folder / f"{name}-cache"
    (write_prw if name == "prw" else write_cuhk_sysu)(root, size)
    sources = [path for path in root.rglob("*") if path.is_file() and path.suffix in {".mat", ".txt"}]
    readings: dict[str, list[dict[str, float]]] = {"first": [], "second": []}
    for _ in range(repeats):
        shutil.rmtree(cache, ignore_errors=True)
        for which in readings:
            # A new process each: nothing is left in memory from the reading before.
            with ProcessPoolExecutor(1, get_context("spawn"), _use_cache, (cache,)) as process:
                readings[which].append(process.submit(timed_read, name, root).result())
    for which, runs in readings.items():
        seconds, cpu = [run["seconds"] for run in runs], median(run["cpu_seconds"] for run in runs)
        spread = f"({min(seconds):.2f} to {max(seconds):.2f})"
        out.print(f"{name:10} {which:6} {median(seconds):6.2f} s  {spread}, {cpu:.2f} s of CPU time")
    return {
        "size": asdict(size),
        "files": len(sources),
        "bytes": sum(path.stat().st_size for path in sources),
        "cache_bytes": sum(path.stat().st_size for path in cache.iterdir()),
        # Other work on the machine makes the wall clock slower, hardly the CPU time.
        "median_cpu_seconds": {which: median(run["cpu_seconds"] for run in runs) for which, runs in readings.items()},
        "median_seconds": {which: median(run["seconds"] for run in runs) for which, runs in readings.items()},
        "readings": readings,
    }


def _use_cache(folder: Path) -> None:
    os.environ["PSARM_CACHE"] = str(folder)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--repeats", default=3, show_default=True, help="Readings without cache, and as many from it.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(repeats: int, json_path: Path | None) -> None:
    """Time reading annotations of PRW's and CUHK-SYSU's size, the first time and from the cache."""
    load = [_load_average()]
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: measure(name, size, Path(folder), repeats) for name, size in SIZES.items()}
    load.append(_load_average())
    if json_path is not None:
        report = {
            "command": shlex.join(["python", "-m", "psarm.benchmarks.annotation_cache", *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
            "machine": asdict(describe_machine()),
            "packages": package_versions(),
            "load_average": load,  # before and after
            "cases": cases,
        }
        write_json(json_path, report)


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    run(main)
