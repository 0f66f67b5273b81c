"""What the torch backend and the GPU suite run on a GPU, on tensors that have a device, a shape and a type alone.

No GPU is needed: a tensor of the host among those of the GPU, a step that waits for the GPU or a shape that depends on
data shows nevertheless. cuDNN's fused calls and Triton's launches are doubles that look at their arguments.
"""

import copy
from types import SimpleNamespace

import pytest
import torch
from small_models import small_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from psarm.benchmarks.gpu.contenders import Rewrites
from psarm.benchmarks.gpu.stages import _parts
from psarm.benchmarks.gpu.subject import Case
from psarm.export import torch_kernels
from psarm.export.device_frames import FrameResizer, FrameUploader
from psarm.export.manifest_of import preprocessing_of
from psarm.export.torch_forms import Form, build_forms
from psarm.export.torch_graphs import DTYPES, MODES

GPU, META = torch.device("cuda"), torch.device("meta")
FRAMES, PEOPLE = 2, 8
KINDS = {
    "psarm": {},
    "released": {"arm_layout": "released", "backbone": "resnet50", "width": 0.125},
    "cascaded": {"variant": "cascaded_psarm"},
    "nae": {"variant": "nae"},
}


class OnGpuAlone(TorchDispatchMode):
    """Refuses an operator that sees a tensor of the host: a copy that waits, in the middle of a recording."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        answer = function(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, answer)):
            assert not isinstance(value, torch.Tensor) or value.device.type == "cuda", f"{function} on {value.device}"
        return answer


class Gpu(FakeTensorMode):
    """Tensors of a GPU that is not there."""

    def move(self, forms):
        """What has been moved to the device `meta`, which stands for the GPU until here; what was forgotten stays."""
        moved = {}
        modules = [part for one in forms.values() for whole in (one.ordinary, one.module) for part in whole.modules()]
        for part in modules:
            for store in (part._parameters, part._buffers, vars(part), vars(getattr(part, "align", SimpleNamespace()))):
                for name, value in list(store.items()):
                    if isinstance(value, torch.Tensor) and value.device.type == "meta":
                        moved.setdefault(id(value), (value, self.like(value)))
                        store[name] = moved[id(value)][1]

    def like(self, value):
        with self:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=GPU)


@pytest.fixture
def cudnn(monkeypatch):
    """Its fused calls: convolutions of what cuDNN takes; torch brings maps into the weights' layout."""

    def fused(x, weight, bias, *geometry):
        assert x.dtype == weight.dtype == bias.dtype and bias.shape == weight.shape[:1]
        assert weight.is_contiguous(memory_format=torch.channels_last)
        return functional.conv2d(x, weight, bias, *geometry)

    def fused_with(x, weight, residual, alpha, bias, *geometry):
        answer = fused(x, weight, bias, *geometry)
        assert residual.shape == answer.shape and residual.dtype == answer.dtype and alpha == 1.0
        return answer

    monkeypatch.setattr(torch, "cudnn_convolution_relu", fused)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", fused_with)


@pytest.fixture
def launches(monkeypatch):
    """Kernels' names, as they are launched."""
    pytest.importorskip("triton")
    from psarm.export.kernels import frames, mixer, roi_align, suppression

    launched = []

    class Launch:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            assert all(0 < size < 65536 for size in grid[1:]) and 0 < grid[0] < 1 << 31
            return self.launch

        def launch(self, *values, **more):
            launched.append(self.name)
            assert all(value.is_cuda for value in (*values, *more.values()) if isinstance(value, torch.Tensor))

    names = {roi_align: ["_roi_align"], suppression: ["_compare", "_sweep"], frames: ["_normalise_frames"]}
    names[mixer] = ["_pool", "_gate_norm", "_bias_gelu", "_add_simam"]
    for module, kernels in names.items():
        for name in kernels:
            monkeypatch.setattr(module, name, Launch(name))
    monkeypatch.setattr(torch_kernels, "available", lambda device: True)
    return launched


def case():
    images = torch.empty(FRAMES, 3, 96, 160, device=GPU).contiguous(memory_format=torch.channels_last)
    sizes, numbers = (torch.empty(*shape, dtype=torch.int64, device=GPU) for shape in ((FRAMES, 2), (PEOPLE,)))
    return Case(images, sizes, torch.empty(PEOPLE, 4, device=GPU), numbers)


def run(model, form):
    """All graphs of a form, as a recording would run them."""
    forms = build_forms(copy.deepcopy(model), form, META)
    with Gpu() as gpu, torch.inference_mode():
        gpu.move(forms)
        given = case()
        with OnGpuAlone():
            found = forms["detect"].static(given.images, given.sizes)
            heads = [forms[name].static(found[3], given.boxes, given.numbers) for name in forms.keys() - {"detect"}]
    assert found[0].dtype == found[3].dtype == torch.float32 and found[-1].dtype == torch.bool
    assert len(found) == len(forms["detect"].static_outputs)
    assert all(head[0].shape == (PEOPLE, 4) and head[-1].dtype == torch.float32 for head in heads)
    return forms


@pytest.mark.parametrize(
    ("precision", "kind"), [*(("fp16", kind) for kind in KINDS), ("bf16", "psarm"), ("fp32", "cascaded")]
)
@pytest.mark.parametrize("mode", ["graphs", "fused", "kernels"])
def test_every_mode_runs_on_the_gpu_alone(cudnn, launches, mode, precision, kind):
    run(small_model(**KINDS[kind]), Form(DTYPES[precision], **MODES[mode]))
    if mode == "kernels":
        assert {"_roi_align", "_compare", "_sweep"} <= set(launches)


@pytest.mark.parametrize("changes", [{"channels_last": False}, {"kernels": True}, {"compiled": "parts"}])
def test_what_only_the_suite_runs(launches, changes):
    changes = {**changes, **({"compiler": "eager"} if "compiled" in changes else {})}
    run(small_model(), Form(torch.float16, static=True, **changes))


@pytest.mark.parametrize("kernels", [False, True])
def test_stages_run_on_the_gpu_alone(launches, kernels):
    subject = SimpleNamespace(model=lambda: small_model(), device=META)
    built = Rewrites(subject, Form(torch.float16, static=True, kernels=kernels), recorded=True)
    with Gpu() as gpu, torch.inference_mode():
        gpu.move(built.forms)
        given = case()
        with OnGpuAlone():
            for function, inputs in _parts(built, given).values():
                function(*inputs)


@pytest.mark.parametrize("kernels", [False, True])
def test_frames_are_made_on_the_gpu_alone(launches, kernels):
    rule = preprocessing_of(small_model().config)
    resizer = FrameResizer((90, 150), (60, 100), rule).to(META)
    uploader = FrameUploader(rule, GPU, kernels)
    uploader._resizers[90, 150] = resizer
    with Gpu() as gpu, torch.inference_mode():
        gpu.move({"frames": SimpleNamespace(ordinary=resizer, module=resizer)})
        images = torch.empty(FRAMES, 3, 64, 128, device=GPU).contiguous(memory_format=torch.channels_last)
        frames = torch.empty(FRAMES, 90, 150, 3, dtype=torch.uint8, device=GPU)
        with OnGpuAlone():
            uploader._fill(images, frames, (60, 100))
    assert launches == (["_normalise_frames"] if kernels else [])
