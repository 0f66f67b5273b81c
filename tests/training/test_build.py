"""The parts of a run: who reads image sizes, and what all processes get."""

import dataclasses

import forked
import numpy as np
import pytest
from accelerate import Accelerator
from tiny_prw import write_tiny_prw
from tiny_runs import tiny

from psarm.data import image_sizes, loader
from psarm.data.prw import read_prw
from psarm.errors import DataError
from psarm.model.batchnorm import SyncBatchNorm
from psarm.training.build import make_loader, make_model


def with_data(config, **fields):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))


@pytest.fixture
def broken_root(tmp_path):
    """A data set whose second training frame cannot be decoded."""
    root = write_tiny_prw(tmp_path / "prw", train=6)
    read_prw(root).train[1].path.write_bytes(b"not an image")
    return root


def batches_and_bars(accelerator, config, reads):
    """The frames of a process's batches with those of the first one's disk, its bars, and its error."""
    bars = []
    image_sizes.track = lambda items, title, total: bars.append(title) or items
    if not reads[accelerator.process_index]:
        loader.read_image_sizes = lambda paths, skip: np.ones((len(paths), 2), np.int64)  # as if it could read nothing
    try:
        made = make_loader(config, read_prw(config.data.root), accelerator)
    except DataError as error:
        return {"error": str(error), "bars": bars}
    return {"batches": list(made.batch_sampler), "aspects": made.batch_sampler.aspects.tolist(), "bars": bars}


def test_the_first_process_reads_image_sizes_for_all(broken_root, tmp_path):
    config = with_data(tiny(broken_root, tmp_path), bad_images="skip")
    (tmp_path / "two").mkdir()
    first, second = forked.answers(batches_and_bars, tmp_path / "two", config, [True, False])
    assert first["bars"] == ["Reading image sizes"] and second["bars"] == []
    assert first["aspects"] == second["aspects"]
    assert first["aspects"][1] == 1 and first["aspects"][0] > 1
    alone = make_loader(
        dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=4)),
        read_prw(broken_root),
        Accelerator(cpu=True),
    )
    both = [one + other for one, other in zip(first["batches"], second["batches"], strict=True)]
    assert both == [[[*key] for key in batch] for batch in alone.batch_sampler]


def test_an_error_of_the_first_process_is_that_of_all(broken_root, tmp_path):
    (tmp_path / "two").mkdir()
    first, second = forked.answers(batches_and_bars, tmp_path / "two", tiny(broken_root, tmp_path), [True, False])
    assert first["error"] == second["error"]
    assert first["error"].startswith("Cannot read ") and "(the image cannot be decoded" in first["error"]


def test_sizes_are_read_only_where_they_decide_anything(broken_root, tmp_path):
    config, dataset, accelerator = tiny(broken_root, tmp_path), read_prw(broken_root), Accelerator(cpu=True)
    make_loader(with_data(config, group_by_shape=False), dataset, accelerator)
    make_loader(tiny(broken_root, tmp_path, batch_size=1), dataset, accelerator)
    for steps in ({"batch_size": 2}, {"batch_size": 1, "accumulate": 2}):
        with pytest.raises(DataError, match=r"^Cannot read .*\.jpg \("):
            make_loader(tiny(broken_root, tmp_path, **steps), dataset, accelerator)


@pytest.mark.parametrize("on", [True, False])
def test_batchnorms_are_synchronised_where_asked_for(tmp_path, on):
    model = make_model(tiny(tmp_path, tmp_path, sync_batchnorm=on), Accelerator(cpu=True), None)
    assert {part.synchronised for part in model.modules() if isinstance(part, SyncBatchNorm)} == {on}
