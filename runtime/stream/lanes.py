"""How many batches the network works on at a time, and backends to do so.

One frame keeps two or more CPU threads busy for a part of the time only: every layer waits for its slowest thread, and
what lies between the layers runs on one. Several frames at a time, on a share of the threads each, leave no core idle.
"""

from __future__ import annotations

from contextlib import ExitStack

from psarm.errors import UsageError
from psarm.runtime.backends import load_backend
from psarm.runtime.bundle import Bundle
from psarm.runtime.stages import Network

SIDE_BY_SIDE = ("openvino", "onnxruntime")
"""Backends of which several run in one process, each on threads of its own; torch has one number for all of them."""
MOST_REQUESTS = 4
"""Each holds weights and activations of its own."""


def default_requests(network: Network, threads: int) -> int:
    """Batches in the network at a time: one a thread up to `MOST_REQUESTS` on a CPU, one on a GPU."""
    backend = network.backend
    if backend.name not in SIDE_BY_SIDE or not backend.device.startswith("CPU"):
        return 1
    return min(threads, MOST_REQUESTS)


def share_threads(threads: int, requests: int) -> list[int]:
    """`threads` over `requests` lanes as evenly as can be, at least one each: a runtime takes 0 for every core."""
    each, left = divmod(threads, requests)
    return [max(1, each + (lane < left)) for lane in range(requests)]


def open_lanes(network: Network, bundle: Bundle, threads: int, requests: int, stack: ExitStack) -> list[Network]:
    """`requests` networks that run at the same time, closed by `stack`; the given one where it is to be one.

    They share `threads`. Raises `UsageError` for more than the backend or the threads allow.
    """
    if requests == 1:
        return [network]
    kind = network.backend
    if kind.name not in SIDE_BY_SIDE:
        raise UsageError(
            f"requests is {requests}, but {kind.title} runs one batch at a time; leave it out, or use one of the "
            f"backends {' and '.join(SIDE_BY_SIDE)}."
        )
    if kind.device.startswith("CPU") and requests > threads:
        raise UsageError(
            f"requests is {requests}, but there are {threads} CPU threads to share; needed 1 to {threads}."
        )
    lanes = []
    for share in share_threads(threads, requests):
        lane = Network(load_backend(kind.name)(bundle, kind.precision, share), bundle.manifest)
        stack.callback(lane.close)
        lanes.append(lane)
    return lanes
