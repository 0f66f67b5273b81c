"""`manifest.json`, the description of a bundle: written by `psarm.export`, read by the runtime.

The dataclasses below are the schema: field names are the JSON keys. Reading is strict about missing keys, types and
values that would change what the graphs compute; unknown keys are ignored so that a later psarm may add some.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args, get_origin, get_type_hints

from psarm.errors import BundleError
from psarm.files import sha256, write_json

SCHEMA = 2
"""The newest that is read; bundles with nothing that came after schema 1 still say 1 (`schema_of`)."""
MANIFEST_NAME = "manifest.json"
SIZE_DIVISOR = 32
"""Sides of padded images are multiples of this; the graphs are traced with that knowledge."""
GRAPH_INPUTS = {
    "detect": ("images", "image_sizes"),
    "refine": ("features", "boxes", "batch_indices"),
    "reid": ("features", "boxes", "batch_indices"),
}
GRAPH_OUTPUTS = {
    "detect": ("boxes", "scores", "counts", "features"),
    "refine": ("refined_boxes",),
    "reid": ("refined_boxes", "embeddings"),
}
OPTIONAL_GRAPHS = ("refine",)
"""Runs between the other two where a bundle has it: boxes are refined once more before they are embedded."""
OPTIONAL_OUTPUTS = {"detect": ("regions",)}
"""`regions`: where the graphs that follow look for each of `boxes`; the boxes themselves where a bundle has none."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph."""

    dtype: str
    """numpy's name: float32, int64."""
    shape: tuple[int | str, ...]
    """A number where the size is fixed, a name where it varies; one name is one size within a call."""


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one graph."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass(frozen=True)
class ModelInfo:
    """What was exported."""

    variant: str
    arm_layout: str
    backbone: str
    width: float
    parameters: int


@dataclass(frozen=True)
class EmbeddingInfo:
    """The embedding space: vectors are comparable only where `fingerprint` is the same."""

    size: int
    fingerprint: str


@dataclass(frozen=True)
class Preprocessing:
    """From a frame to the detect graph's input."""

    min_size: int
    max_size: int
    size_divisor: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colour: Literal["RGB"]
    range: tuple[float, float]
    interpolation: Literal["bilinear"]


@dataclass(frozen=True)
class Thresholds:
    """Host steps between and after the graphs."""

    score: float
    detection_nms: float
    final_nms: float
    detections_per_image: int
    min_box_side: float


@dataclass(frozen=True)
class FileInfo:
    """One file of the bundle."""

    sha256: str
    size: int


@dataclass(frozen=True)
class DatasetInfo:
    """What the model was trained on."""

    name: str
    train_frames: int
    identities: int


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs to know about a bundle. Inconsistent values raise `BundleError`."""

    schema: int
    psarm_version: str
    created: str
    model: ModelInfo
    embedding: EmbeddingInfo
    preprocessing: Preprocessing
    thresholds: Thresholds
    graphs: dict[str, GraphSpec]
    opset: int
    precisions: dict[str, dict[str, str]]
    """Precision → graph name → file name."""
    files: dict[str, FileInfo]
    """Relative file name → hash and size."""
    dataset: DatasetInfo | None
    licence: str
    tensorrt: dict[str, dict[str, str]] = field(default_factory=dict)
    """As `precisions`, for the form of the graphs that TensorRT builds engines from; empty where a bundle has none."""
    weights: str | None = None
    """The checkpoint file for the torch backend, where the bundle has one."""

    def __post_init__(self) -> None:
        _check_values(self)
        _check_graphs(self)
        _check_files(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to the file."""
        return dataclasses.asdict(self)


def read_manifest(directory: str | Path) -> Manifest:
    """Read `manifest.json` of a bundle directory; raises `BundleError` saying what is wrong with it."""
    path = Path(directory) / MANIFEST_NAME
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not valid JSON ({error}); export the bundle again.") from error
    except OSError as error:
        raise BundleError(f"Cannot read {path}: {error.strerror}.") from error
    if not isinstance(value, dict) or type(value.get("schema")) is not int:
        raise BundleError(f"{path} has no schema number, so it is not the manifest of a psarm bundle.")
    schema = value["schema"]
    if schema > SCHEMA:
        raise BundleError(
            f"{path} was made by a newer psarm: schema {schema}, this psarm reads 1 to {SCHEMA}; upgrade psarm."
        )
    if schema < 1:
        raise BundleError(f"{path} has schema {schema}, this psarm reads 1 to {SCHEMA}; export the bundle again.")
    try:
        manifest: Manifest = _parse(Manifest, value, "")
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    return manifest


def schema_of(graphs: Mapping[str, GraphSpec]) -> int:
    """The least schema that tells of all `graphs`: 2 where a psarm of schema 1 would leave an optional part out."""
    parts = any(name in graphs for name in OPTIONAL_GRAPHS) or any(
        output in graphs[name].outputs for name, outputs in OPTIONAL_OUTPUTS.items() for output in outputs
    )
    return 2 if parts else 1


def write_manifest(directory: str | Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically into a bundle directory."""
    write_json(Path(directory) / MANIFEST_NAME, manifest.to_dict())


def describe_files(directory: str | Path, names: Iterable[str]) -> dict[str, FileInfo]:
    """Hash and size of the named files of a directory, for `Manifest.files`."""
    paths = {name: Path(directory) / name for name in names}
    return {name: FileInfo(sha256(path), path.stat().st_size) for name, path in paths.items()}


def _check_values(manifest: Manifest) -> None:
    rule, limits = manifest.preprocessing, manifest.thresholds
    _require(1 <= manifest.schema <= SCHEMA, "schema", manifest.schema, f"between 1 and {SCHEMA}")
    _require(manifest.embedding.size > 0, "embedding.size", manifest.embedding.size, "more than 0")
    _require(0 < rule.min_size <= rule.max_size, "preprocessing.min_size", rule.min_size, "between 1 and max_size")
    _require(rule.size_divisor > 0, "preprocessing.size_divisor", rule.size_divisor, "more than 0")
    _require(min(rule.std) > 0, "preprocessing.std", rule.std, "more than 0")
    _require(rule.range == (0, 1), "preprocessing.range", rule.range, "[0, 1]")
    for name in ("score", "detection_nms", "final_nms"):
        value = getattr(limits, name)
        _require(0 <= value <= 1, f"thresholds.{name}", value, "between 0 and 1")
    count = limits.detections_per_image
    _require(count > 0, "thresholds.detections_per_image", count, "more than 0")


def _check_graphs(manifest: Manifest) -> None:
    for name, inputs in GRAPH_INPUTS.items():
        if name in OPTIONAL_GRAPHS and name not in manifest.graphs:
            continue
        _require(name in manifest.graphs, "graphs", sorted(manifest.graphs), f"a graph {name!r}")
        graph = manifest.graphs[name]
        _require(set(graph.inputs) == set(inputs), f"graphs.{name}.inputs", sorted(graph.inputs), ", ".join(inputs))
        outputs = GRAPH_OUTPUTS[name]
        found = set(graph.outputs) - set(OPTIONAL_OUTPUTS.get(name, ()))
        _require(found == set(outputs), f"graphs.{name}.outputs", sorted(graph.outputs), ", ".join(outputs))
    unknown = sorted(set(manifest.graphs) - set(GRAPH_INPUTS))
    _require(not unknown, "graphs", sorted(manifest.graphs), f"no graphs but {', '.join(GRAPH_INPUTS)}")
    least = schema_of(manifest.graphs)
    _require(manifest.schema >= least, "schema", manifest.schema, f"{least}, which tells of its optional parts")
    embeddings = manifest.graphs["reid"].outputs["embeddings"].shape
    _require(
        embeddings[-1:] == (manifest.embedding.size,),
        "graphs.reid.outputs.embeddings.shape",
        list(embeddings),
        f"[R, {manifest.embedding.size}], as embedding.size says",
    )
    given = manifest.graphs["detect"].outputs["features"].shape
    for name in manifest.graphs.keys() - {"detect"}:
        taken = manifest.graphs[name].inputs["features"].shape
        same = len(given) == len(taken) and all(
            isinstance(a, str) or isinstance(b, str) or a == b for a, b in zip(given, taken, strict=True)
        )
        key = f"graphs.{name}.inputs.features.shape"
        _require(same, key, list(taken), f"{list(given)}, what the detect graph gives")


def _check_files(manifest: Manifest) -> None:
    _require(bool(manifest.precisions), "precisions", manifest.precisions, "at least one precision")
    for key, precisions in (("precisions", manifest.precisions), ("tensorrt", manifest.tensorrt)):
        for precision, graphs in precisions.items():
            for name in manifest.graphs:
                _require(name in graphs, f"{key}.{precision}", sorted(graphs), f"a file for the graph {name!r}")
            for file in graphs.values():
                _require(file in manifest.files, f"{key}.{precision}", file, "a file listed under files")
    if manifest.weights is not None:
        _require(manifest.weights in manifest.files, "weights", manifest.weights, "a file listed under files")
    for file in manifest.files:
        parts = PurePosixPath(file).parts
        inside = bool(parts) and ".." not in parts and not PurePosixPath(file).is_absolute()
        _require(inside, "files", file, "a path inside the bundle")


def _require(holds: bool, key: str, value: Any, needed: str) -> None:
    if not holds:
        raise BundleError(f"{key} is {value!r}; needed {needed}.")


def _parse(kind: Any, value: Any, where: str) -> Any:
    """`value` from JSON as the annotated type `kind`; `where` is the key path for messages."""
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is dict:
        _require(isinstance(value, dict), where, value, "a mapping")
        return {key: _parse(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is tuple:
        _require(isinstance(value, list), where, value, "a list")
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        _require(len(kinds) == len(value), where, value, f"a list of {len(kinds)}")
        return tuple(_parse(item_kind, item, where) for item_kind, item in zip(kinds, value, strict=True))
    if origin is Literal:
        _require(value in arguments, where, value, " or ".join(map(repr, arguments)))
        return value
    if origin is types.UnionType:
        return _parse_union(arguments, value, where)
    fits = type(value) is kind or (kind is float and type(value) is int)
    _require(fits, where, value, f"a value of type {kind.__name__}")
    return value


def _parse_dataclass(kind: Any, value: Any, where: str) -> Any:
    _require(isinstance(value, dict), where, value, "a mapping")
    hints = get_type_hints(kind)
    optional = {
        one.name for one in dataclasses.fields(kind) if one.default_factory is not MISSING or one.default is not MISSING
    }
    made = {}
    for name, hint in hints.items():
        path = f"{where}.{name}" if where else name
        if name not in value and name in optional:
            continue
        if name not in value:
            raise BundleError(f"the key {path} is missing; export the bundle again.")
        made[name] = _parse(hint, value[name], path)
    return kind(**made)


def _parse_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    plain = [kind for kind in kinds if kind is type(value)]
    others = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    names = " or ".join(kind.__name__ for kind in kinds)
    _require(bool(plain or others), where, value, names)
    return value if plain else _parse(others[0], value, where)
