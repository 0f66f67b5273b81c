"""The files of a bundle in the making."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import onnx

from psarm.errors import ExportError
from psarm.export.tracing import first_line, simplified
from psarm.model.checkpoint import save_model
from psarm.model.person_search import PersonSearchModel
from psarm.runtime.manifest import DatasetInfo

WEIGHTS_NAME = "model.safetensors"
"""The checkpoint in a bundle, for the torch backend."""


class BundleFiles:
    """Writes graphs and weights into a directory, and knows what is there."""

    def __init__(self, directory: Path, simplify: bool) -> None:
        self.directory = directory
        self.simplify = simplify
        self.precisions: dict[str, dict[str, str]] = {}
        self.tensorrt: dict[str, dict[str, str]] = {}
        self.weights: str | None = None
        """As in the manifest, these three."""
        self.sizes: dict[str, int] = {}
        self.nodes: dict[str, int] = {}

    def write(self, precision: str, models: dict[str, onnx.ModelProto]) -> None:
        """The graphs in one precision; raises `ExportError` for one that is no valid ONNX."""
        suffix = "" if precision == "fp32" else f".{precision}"
        # onnxslim folds the pairs that int8 consists of
        slim = self.simplify and precision != "int8"
        self.precisions[precision] = {
            name: self._save(f"{name}{suffix}", simplified(model) if slim else model) for name, model in models.items()
        }

    def write_tensorrt(self, precision: str, models: dict[str, onnx.ModelProto]) -> None:
        """The same in the form for TensorRT."""
        (self.directory / "tensorrt").mkdir(exist_ok=True)
        self.tensorrt[precision] = {
            name: self._save(f"tensorrt/{name}.{precision}", model) for name, model in models.items()
        }

    def write_weights(self, model: PersonSearchModel, dataset: DatasetInfo | None) -> None:
        """The checkpoint."""
        self.weights = WEIGHTS_NAME
        save_model(model, self.directory / WEIGHTS_NAME, None if dataset is None else asdict(dataset))

    def load(self, precision: str, tensorrt: bool = False) -> dict[str, onnx.ModelProto]:
        """The graphs as they were written, in the ordinary form or the one for TensorRT."""
        written = (self.tensorrt if tensorrt else self.precisions)[precision]
        return {name: onnx.load(self.directory / file) for name, file in written.items()}

    @property
    def names(self) -> list[str]:
        """All files, as the manifest lists them."""
        graphs = [
            file for form in (self.precisions, self.tensorrt) for files in form.values() for file in files.values()
        ]
        return graphs if self.weights is None else [*graphs, self.weights]

    def _save(self, name: str, model: onnx.ModelProto) -> str:
        _check_graph(name, model)
        file = f"{name}.onnx"
        onnx.save(model, self.directory / file)
        self.sizes[name] = (self.directory / file).stat().st_size
        self.nodes[name] = len(model.graph.node)
        return file


def _check_graph(name: str, graph: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ExportError(
            f"The {name} graph is no valid ONNX ({first_line(error)}); this is a fault of psarm or, with --simplify, "
            "of onnxslim."
        ) from error
