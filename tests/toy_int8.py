"""The toy bundle's detect graph in int8."""

import numpy as np
import onnx
from onnx import helper, numpy_helper
from toy_bundle import CHANNELS, MIX


def quantise_conv(model: onnx.ModelProto) -> None:
    """Explicit pairs around the detect graph's convolution: uint8 activations, int8 weights per channel."""
    [conv] = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == conv.input[1])
    scale = (np.abs(MIX).max(axis=1) / 127).astype(np.float32)
    constants = {
        "x_scale": np.array(6 / 255, np.float32),
        "x_zero": np.array(128, np.uint8),
        "w_scale": scale,
        "w_zero": np.zeros(len(scale), np.int8),
        "w_int8": np.round(MIX / scale[:, None]).astype(np.int8).reshape(CHANNELS, 3, 1, 1),
    }
    model.graph.initializer.remove(weights)
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    pairs = [
        helper.make_node("QuantizeLinear", [conv.input[0], "x_scale", "x_zero"], ["x_int8"]),
        helper.make_node("DequantizeLinear", ["x_int8", "x_scale", "x_zero"], ["x_rounded"]),
        helper.make_node("DequantizeLinear", ["w_int8", "w_scale", "w_zero"], ["w_rounded"], axis=0),
    ]
    conv.input[0], conv.input[1] = "x_rounded", "w_rounded"
    place = list(model.graph.node).index(conv)
    for pair in reversed(pairs):
        model.graph.node.insert(place, pair)
