"""The graphs with kernels in their place, in Triton's interpreter; run by `test_kernels.py` in a process of its own."""

import torch
from small_models import small_model

from psarm.export.torch_forms import Form, build_forms


def test_graphs_with_kernels_answer_as_without():
    changes = {"arm_layout": "released", "pre_nms_top_n_test": 40, "post_nms_top_n_test": 4, "roi_size": 7}
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    sizes, numbers = torch.tensor([[60, 90]]), torch.zeros(2, dtype=torch.int64)
    boxes = torch.tensor([[4.0, 5, 40, 50], [50, -3, 99, 61]])
    found = []
    for kernels in (False, True):
        forms = build_forms(small_model(**changes), Form(static=True, kernels=kernels), torch.device("cpu"))
        with torch.inference_mode():
            *detections, exact = forms["detect"].static(images, sizes)
            assert exact.all()
            found.append([*detections, *forms["reid"].static(detections[3], boxes, numbers)])
    assert found[0][2].item() > 1  # proposals that NMS left
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
