"""`engines/<key>/`: one plan a graph and `engine.json`, which says what they were built from and for."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psarm import __version__
from psarm.errors import BundleError, UsageError
from psarm.files import atomic_directory, write_json
from psarm.runtime.tensorrt.build import Plan
from psarm.runtime.tensorrt.device import Gpu
from psarm.runtime.tensorrt.profiles import FrameShapes

SCHEMA = 1
INFO = "engine.json"


@dataclass(frozen=True)
class Target:
    """What engines are built from and for; the same target has the same engines."""

    flavour: str
    version: str
    gpu: str | None
    """Name of the GPU; None for RTX engines, which run on every GPU of their compute capabilities."""
    compute_capabilities: tuple[str, ...]
    """Empty: those that the library takes where none are named."""
    precision: str
    graphs: dict[str, str]
    """Graph → SHA-256 of its ONNX file."""
    frames: tuple[FrameShapes, ...]
    people: int
    """Boxes of a frame the engines take at most."""

    @property
    def key(self) -> str:
        """Name of the engines' folder."""
        text = json.dumps([SCHEMA, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def fits(self, gpu: Gpu) -> bool:
        """Whether the engines run on `gpu`."""
        if self.gpu is not None and self.gpu != gpu.name:
            return False
        return not self.compute_capabilities or gpu.compute_capability in self.compute_capabilities

    def place(self) -> str:
        """For people: what the engines run on."""
        capabilities = ", ".join(self.compute_capabilities)
        if self.gpu is not None:
            return f"{self.gpu} (compute capability {capabilities})"
        return f"compute capability {capabilities}" if capabilities else "the library's usual GPUs"


@dataclass(frozen=True)
class EngineFile:
    """One plan."""

    file: str
    sha256: str
    bytes: int
    layers: dict[str, int]
    """Layers of the engine by the type of their outputs."""
    profiles: int
    seconds: float


@dataclass(frozen=True)
class Engines:
    """The engines of a bundle for one target, on disk."""

    path: Path
    target: Target
    files: dict[str, EngineFile]
    """By graph."""
    created: str

    def read_plan(self, graph: str) -> bytes:
        """The plan of a graph; raises `BundleError` where it is not what `engine.json` says."""
        expected, path = self.files[graph], self.path / self.files[graph].file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self._damaged(path, error.strerror or str(error)) from error
        if hashlib.sha256(data).hexdigest() != expected.sha256:
            raise self._damaged(path, f"its SHA-256 is not that of {INFO}")
        return data

    @property
    def whole(self) -> bool:
        """Whether every plan is there as it was written."""
        try:
            for graph in self.files:
                self.read_plan(graph)
        except BundleError:
            return False
        return True

    def _damaged(self, path: Path, why: str) -> BundleError:
        return BundleError(
            f"{path} is missing or damaged ({why}); delete {self.path} and build the engines again with psarm engines."
        )


def write_engines(path: Path, target: Target, plans: Mapping[str, Plan]) -> Engines:
    """Plans and `engine.json` as one folder, all or nothing."""
    files = {
        graph: EngineFile(
            f"{graph}.plan",
            hashlib.sha256(plan.data).hexdigest(),
            len(plan.data),
            plan.layers,
            len(plan.profiles),
            round(plan.seconds, 1),
        )
        for graph, plan in plans.items()
    }
    engines = Engines(path, target, files, _now())
    with atomic_directory(path) as temporary:
        for graph, plan in plans.items():
            (temporary / files[graph].file).write_bytes(plan.data)
        write_json(
            temporary / INFO,
            {
                "schema": SCHEMA,
                "psarm_version": __version__,
                "created": engines.created,
                "target": asdict(target),
                "files": {graph: asdict(file) for graph, file in files.items()},
            },
        )
    return engines


def renew(engines: Engines, folder: Path) -> Engines:
    """Make engines the newest; those that do not lie in `folder` are copied there, theirs may be read-only."""
    value = json.loads((engines.path / INFO).read_text(encoding="utf-8"))
    path = folder / engines.target.key
    renewed = replace(engines, path=path, created=_now())
    if engines.path == path:
        write_json(path / INFO, value | {"created": renewed.created})
        return renewed
    with atomic_directory(path) as temporary:
        for file in engines.files.values():
            shutil.copyfile(engines.path / file.file, temporary / file.file)
        write_json(temporary / INFO, value | {"created": renewed.created})
    return renewed


def read_engines(folders: Sequence[Path]) -> list[Engines]:
    """All engines in `folders`, of every target."""
    paths = [path for folder in folders for path in sorted(folder.glob(f"*/{INFO}")) if path.parent.name[0] != "."]
    return [one for one in map(_read, paths) if one is not None]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _read(path: Path) -> Engines | None:
    """None for what a later psarm wrote, and for what is no readable description of engines: it is built anew."""
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
        if value["schema"] != SCHEMA:
            return None
        facts = dict(value["target"])
        facts["frames"] = tuple(
            FrameShapes(*(tuple(one[name]) for name in ("minimum", "optimum", "maximum"))) for one in facts["frames"]
        )
        facts["compute_capabilities"] = tuple(facts["compute_capabilities"])
        target = Target(**facts)
        files = {graph: EngineFile(**value["files"][graph]) for graph in target.graphs}
        return Engines(path.parent, target, files, str(value["created"]))
    except (OSError, AttributeError, KeyError, TypeError, ValueError, UsageError):
        return None
