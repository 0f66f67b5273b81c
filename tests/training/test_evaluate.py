import dataclasses
import os
import signal

import evaluating_processes
import forked
import numpy as np
import pytest
import torch
from oracle_model import Oracle

from psarm.config import ModelConfig
from psarm.data import scenes
from psarm.data.prw import read_prw
from psarm.errors import DataError
from psarm.evaluation import collect
from psarm.model.builder import build_model
from psarm.training.evaluate import ModelEngine, evaluate


@pytest.mark.parametrize(("cbgm", "workers"), [(False, 0), (True, 0), (False, 2)])
def test_a_model_that_knows_everything_scores_100(prw, cbgm, workers):
    dataset = read_prw(prw)
    metrics = evaluate(Oracle(dataset), dataset, cbgm, workers)
    assert metrics.keys() == {"detection", "search", "search_cross_camera"} | ({"search_cbgm"} if cbgm else set())
    for part in metrics.values():
        assert all(value == pytest.approx(1) for value in part.values())


def test_the_engine_is_the_model(prw):
    torch.manual_seed(0)
    config = ModelConfig(backbone="resnet18", width=0.25, min_size=64, max_size=120, roi_size=7, score_thresh=0.0)
    config = dataclasses.replace(config, post_nms_top_n_test=20)
    model = build_model(config).eval()
    engine = ModelEngine(model)
    image = torch.randint(0, 256, (3, 70, 110), dtype=torch.uint8)
    box = np.array([10, 12, 40, 60.5])
    given = torch.tensor(box[None], dtype=torch.float32)
    [plain] = model.detect([image / 255])
    [around] = model.detect_around([image / 255], given)
    for found, expected in ((engine.detect(image), plain), (engine.detect_around(image, box), around)):
        assert len(found.scores) > 1
        for key, value in expected.items():
            assert np.array_equal(getattr(found, key), value.numpy())
    assert np.array_equal(engine.embed(image, box[None]), model.embed([image / 255], [given])[0].numpy())


def test_nothing_to_measure(prw):
    dataset = dataclasses.replace(read_prw(prw), queries=[])
    with pytest.raises(DataError, match="0 queries"):
        evaluate(Oracle(dataset), dataset)


def test_a_model_that_finds_nobody_scores_0(prw, tmp_path):
    config = ModelConfig(backbone="resnet18", width=0.25, min_size=64, max_size=120, roi_size=7, score_thresh=1.0)
    metrics = evaluate(build_model(config), read_prw(prw), cbgm=False)
    assert all(value == 0 for part in metrics.values() for value in part.values())


@pytest.fixture(scope="module")
def of_two_processes(prw, tmp_path_factory):
    """The metrics of each of two processes that share the images."""
    return forked.answers(evaluating_processes.shared_metrics, tmp_path_factory.mktemp("processes"), prw)


def test_two_processes_measure_what_one_does(prw, of_two_processes):
    first, second = of_two_processes
    alone = evaluating_processes.metrics(prw)
    assert first == alone
    assert set(second.values()) == {None} and second.keys() == first.keys()
    assert 0 < alone["as it is with CBGM"]["search_cbgm"]["mAP"] < 1 and alone["as it is"]["search"]["mAP"] < 1


def test_a_reader_that_dies_is_one_sentence(prw, monkeypatch):
    monkeypatch.setattr(scenes, "read_image", lambda path: os.kill(os.getpid(), signal.SIGKILL))
    dataset = read_prw(prw)
    with pytest.raises(DataError, match=r"^A process that reads images \(pid \d+\) .*data.workers; 0 uses none"):
        evaluate(Oracle(dataset), dataset, workers=1)


def test_progress_is_shown_by_the_first_process_only(prw, monkeypatch):
    titles = []
    monkeypatch.setattr(collect, "track", lambda images, title, total: titles.append(title) or images)
    monkeypatch.setattr("torch.distributed.gather_object", lambda share, shares: None)
    dataset = read_prw(prw)
    assert evaluate(Oracle(dataset), dataset, process=1, processes=2) is None
    assert titles == []
    evaluate(Oracle(dataset), dataset)
    assert titles == ["evaluating: gallery", "evaluating: queries"]
