"""What stops a training is one sentence; the last checkpoint stays."""

import dataclasses
import multiprocessing
import os
import signal
import time

import pytest
import torch
from tiny_runs import state_of, tiny

from psarm.config import Config
from psarm.errors import ConfigError, DataError, TrainingError
from psarm.model.person_search import PersonSearchModel
from psarm.training.faults import Diverged, ProcessFault, evaluation_out_of_memory, explained, training_out_of_memory
from psarm.training.report import Report
from psarm.training.trainer import train


def real_cpu_error(*_):
    torch.empty(1 << 60, dtype=torch.uint8)


def cuda_error(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("run_out", [real_cpu_error, cuda_error])
def test_memory_runs_out(prw, tmp_path, monkeypatch, run_out):
    monkeypatch.setattr(PersonSearchModel, "losses", run_out)
    with pytest.raises(TrainingError) as error:
        train(tiny(prw, tmp_path))
    assert str(error.value) == (
        "Memory ran out with train.batch_size 2 and images of up to 96x160 pixels (model.min_size, model.max_size); "
        "take a smaller train.batch_size with train.accumulate as much larger (the effective batch stays the same), "
        "or train.checkpoint_activations=true, or train.amp=bf16, or a smaller model.min_size and model.max_size."
    )


def test_only_what_is_left_to_do_about_memory_is_proposed():
    config = Config()
    train = dataclasses.replace(config.train, batch_size=1, checkpoint_activations=True, amp="bf16")
    sentence = training_out_of_memory(dataclasses.replace(config, train=train))
    assert sentence.endswith("; take a smaller model.min_size and model.max_size.")
    assert "--eval-only" in evaluation_out_of_memory(config.model)


def test_a_process_that_reads_images_is_killed(prw, tmp_path, monkeypatch):
    """At a moment when nobody waits for it."""

    def kill(report, *rest):
        shown(report, *rest)
        [worker] = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        for _ in range(1000):  # torch raises here, where the signal of the death comes
            time.sleep(0.01)

    config = tiny(prw, tmp_path, epochs=1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=1))
    train(config)
    shown = Report.iteration
    monkeypatch.setattr(Report, "iteration", kill)
    more = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=3))
    with pytest.raises(DataError, match=r"^A process that reads images \(pid \d+\) (died|ended).* \(data\.workers"):
        train(more, resume=True, allow_changes=True)
    assert state_of(tmp_path).epoch == 1


@pytest.mark.parametrize(
    ("raised", "process", "kind", "sentence"),
    [
        (DataError("Cannot read x."), 1, ProcessFault, r"^Process 1 of 2: Cannot read x\.$"),
        (torch.OutOfMemoryError("CUDA"), 1, ProcessFault, "^Process 1 of 2: No room$"),
        (OSError(24, "Too many open files"), 1, ProcessFault, "^Process 1 of 2: .*Too many open files$"),
        (OSError(28, "No space left on device"), 0, OSError, "No space left"),
        (Diverged("oim is nan"), 1, Diverged, "^oim is nan$"),
        (ConfigError("wrong"), 1, ConfigError, "^wrong$"),
        (
            RuntimeError("[x/gloo/transport/tcp/pair.cc:5] Connection closed by peer"),
            1,
            TrainingError,
            r"^Another process of this training ended \(\[x/gloo.*5\] Connection closed by peer\)\. What it said tells "
            r"why; if it said nothing it was killed, .* The last finished epoch is kept: --resume goes on from it\.$",
        ),
        (torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), 1, TrainingError, "ended .failed to recv"),
        (
            RuntimeError("max_pool2d_backward does not have a deterministic implementation, but you set"),
            1,
            TrainingError,
            "^train.deterministic is true, and torch has no algorithm for max_pool2d_backward on this device",
        ),
        (RuntimeError("a mistake of ours"), 1, RuntimeError, "a mistake of ours"),
    ],
    ids=str,
)
def test_of_several_processes(raised, process, kind, sentence):
    with pytest.raises(kind, match=sentence) as error, explained("No room", process, 2):
        raise raised
    assert error.type is kind


NCCL = "NCCL error in: /pytorch/NCCLUtils.cpp:94, {}, NCCL version 2.27.5\n{}: what it usually means.\nLast error:\n{}"


@pytest.mark.parametrize(
    ("first", "code", "last"),
    [
        ("invalid usage", "ncclInvalidUsage", "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000"),
        (
            "unhandled system error",
            "ncclSystemError",
            "Error while creating shared memory segment /dev/shm/nccl-1 (size 9), error: No space left on device (28)",
        ),
    ],
    ids=["one GPU twice", "shared memory is full"],
)
def test_nccl_says_what_it_lacks(first, code, last):
    with pytest.raises(ProcessFault) as error, explained("No room", 1, 2):
        raise torch.distributed.DistBackendError(NCCL.format(first, code, last))
    where = f"NCCL error in: /pytorch/NCCLUtils.cpp:94, {first}, NCCL version 2.27.5"
    assert str(error.value) == f"Process 1 of 2: {where}; {last}."


@pytest.mark.parametrize(
    "message",
    [
        NCCL.format(
            "remote process exited or there was a network error",
            "ncclRemoteError",
            "socketProgress: Connection closed by remote peer host<4>",
        ),
        "NCCL communicator was aborted on rank 0.",
    ],
)
def test_nccl_loses_another_process(message):
    with pytest.raises(TrainingError) as error, explained("No room", 1, 2):
        raise torch.distributed.DistBackendError(message)
    assert str(error.value).startswith("Another process of this training ended (NCCL ")
    assert error.type is TrainingError and "\n" not in str(error.value)


def test_what_all_processes_meet_alike_stays_as_it_is():
    with pytest.raises(DataError, match=r"^Cannot read x\.$"), explained("No room", 1, 2, common=DataError):
        raise DataError("Cannot read x.")
