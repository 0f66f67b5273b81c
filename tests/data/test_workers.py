"""What goes wrong in the processes that read images."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from psarm.data import scenes
from psarm.data.loader import TrainingFrames, training_loader
from psarm.data.types import Frame
from psarm.data.workers import dead_workers_explained, plain_errors, worker_sentence
from psarm.errors import DataError

DIED = r"^A process that reads images \(pid \d+\) (died \(Killed\)|ended unexpectedly), .*data.workers; 0 uses none\)"


class Deadly:
    """Images whose reading ends the process that does it, as the system does when memory runs out."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


class DeadlyFrames(TrainingFrames):
    def __getitem__(self, key):
        return Deadly()[key]


def test_a_worker_of_training_that_is_killed_is_one_sentence(tmp_path):
    frame = Frame("x.jpg", tmp_path / "x.jpg", 1, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    loader = training_loader(DeadlyFrames([frame] * 8, {}, 45, 80, 0.5, 0), 2, 2)
    with pytest.raises(DataError, match=DIED):
        list(plain_errors(loader))


def test_a_reader_of_scenes_that_is_killed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "read_image", Deadly().__getitem__)
    with pytest.raises(DataError, match=DIED):
        list(scenes.read_scenes([tmp_path] * 3, 1))


def test_a_worker_that_dies_while_nobody_waits_for_it_is_one_sentence():
    def work():
        loader = iter(DataLoader(torch.arange(100), num_workers=1, prefetch_factor=2))
        next(loader)
        os.kill(loader._workers[0].pid, signal.SIGKILL)
        for _ in range(1000):  # the signal of the death interrupts whatever goes on
            time.sleep(0.01)

    with pytest.raises(DataError, match=DIED), dead_workers_explained():
        work()


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_batch_that_went_with_its_worker_is_one_sentence(error):
    """What torch raises where a batch lay ready when its worker died."""

    def loader():
        yield 1
        raise error

    with pytest.raises(DataError, match=r"^A process that reads images ended unexpectedly, .*data.workers; 0 uses"):
        list(plain_errors(loader()))


def test_other_words_of_torch():
    several = "DataLoader worker (pid(s) 12, 13) exited unexpectedly"
    assert worker_sentence(several).startswith("A process that reads images (pid 12, 13) ended unexpectedly, most")
    full = (
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback …\nRuntimeError: unable to write to "
        "file </torch_1_2>: No space left on device (28)"
    )
    assert worker_sentence(full).startswith("A process that reads images found no room in shared memory (/dev/shm);")
    assert worker_sentence("mat1 and mat2 shapes cannot be multiplied") is None


def test_other_errors_stay_what_they_are():
    def loader():
        yield 1
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match=r"^something else$"):
        list(plain_errors(loader()))
