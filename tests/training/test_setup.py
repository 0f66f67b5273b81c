"""Devices and the other processes."""

import forked
import torch
from torch.distributed import distributed_c10d

from psarm.training.setup import LONGEST_WAIT, make_accelerator


def waits(accelerator):
    """Seconds that the process group waits, and those of torch's default."""
    backend = distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    return [backend.options._timeout.total_seconds(), distributed_c10d.default_pg_timeout.total_seconds()]


def test_processes_wait_for_hours(tmp_path):
    """For the first one's download or scoring."""
    found = forked.answers(waits, tmp_path, make=lambda: make_accelerator("no"))
    assert found == [[LONGEST_WAIT.total_seconds(), 1800]] * 2
    assert LONGEST_WAIT.total_seconds() >= 2 * 3600
