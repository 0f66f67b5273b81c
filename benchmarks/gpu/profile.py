"""Which kernels the time goes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from psarm.benchmarks.gpu.measure import synchronise

RUNS = 5
KERNELS = 40


def top_kernels(function: Callable[[], Any], device: torch.device) -> list[dict[str, Any]]:
    """The kernels (on a CPU the operators) that take longest in one call of a warm function, longest first."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.inference_mode(), profile(activities=activities, acc_events=True) as recorded:
        for _ in range(RUNS):
            function()
        synchronise(device)
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [event for event in recorded.key_averages() if event.device_type == wanted]
    rows = [
        {
            "kernel": event.key[:160],
            "us": (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / RUNS,
            "calls": event.count / RUNS,
        }
        for event in events
    ]
    total = sum(row["us"] for row in rows) or 1.0
    rows.sort(key=lambda row: -row["us"])
    return [{**row, "share": row["us"] / total} for row in rows[:KERNELS]]
