"""A graph in memory on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray

from psarm.errors import ExportError
from psarm.export.tracing import first_line
from psarm.machine import default_threads

Feed = Mapping[str, NDArray[Any]]
Tensors = dict[str, NDArray[Any]]


class Session:
    """Runs a graph for some of its values, inner ones among them."""

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str]) -> None:
        asked = onnx.ModelProto()
        asked.CopyFrom(model)
        del asked.graph.output[:]
        asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = default_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            raise ExportError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load a graph of the bundle in the making "
                f"({first_line(error)}); this is a fault of psarm."
            ) from error
        self._outputs = list(outputs)
        self._inputs = {value.name for value in self._session.get_inputs()}

    def run(self, feed: Feed) -> Tensors:
        """The values by name; what the graph does not take of `feed` is left out."""
        taken = {name: value for name, value in feed.items() if name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, taken), strict=True))
