"""Validation on held-out frames, the best checkpoint, and evaluating what a training left."""

import dataclasses
import json

import pytest
import torch
from tiny_prw import write_tiny_prw
from tiny_runs import state_of, tiny

from psarm.errors import UsageError
from psarm.model.checkpoint import read_checkpoint
from psarm.training import final, trainer
from psarm.training.final import evaluate_output
from psarm.training.trainer import train


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Twelve training frames of three people."""
    return write_tiny_prw(tmp_path_factory.mktemp("data") / "prw", train=12)


def validated(frames, output, **recipe):
    config = tiny(frames, output, **recipe)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, validation=0.34))


@pytest.fixture
def scores(monkeypatch):
    """Validations find mAP 20 %, 50 %, 50 %, 40 %, and the same persons; `seen` holds the data sets and the weights."""
    seen = []

    def score(model, dataset, workers, process, processes):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        seen.append((dataset, state))
        value = (0.2, 0.5, 0.5, 0.4)[len(seen) - 1]
        return {"search": {"mAP": value, "top1": value}, "detection": {"ap": 0.1, "recall": 0.2}}

    monkeypatch.setattr(trainer, "evaluate", score)
    return seen


def same(state, other):
    return all(torch.equal(value, other[name]) for name, value in state.items())


def test_the_best_epoch_is_kept_over_a_resume_and_evaluated(frames, tmp_path, scores, monkeypatch, capsys):
    tested = []

    def test_split(model, dataset, workers, process, processes):
        tested.append((dataset, {name: value.clone() for name, value in model.state_dict().items()}))
        return {"search": {"mAP": 0.7}}

    monkeypatch.setattr(final, "evaluate", test_split)
    train(validated(frames, tmp_path, epochs=3, ema=0.5))
    config = validated(frames, tmp_path, epochs=4, ema=0.5, evaluate=True)
    result = train(config, resume=True, allow_changes=True)
    assert [(entry["epoch"], entry["search"]["mAP"]) for entry in result.validation] == [
        (1, 0.2),
        (2, 0.5),
        (3, 0.5),
        (4, 0.4),
    ]
    assert state_of(tmp_path).validation == result.validation
    best = read_checkpoint(tmp_path / "best.safetensors").state
    assert same(best, scores[2][1]) and not same(best, scores[1][1])  # with the average of the weights
    assert same(read_checkpoint(tmp_path / "model.safetensors").state, scores[3][1])
    assert result.checkpoint == tmp_path / "best.safetensors"
    [(dataset, weights)] = tested
    assert same(weights, best) and len(dataset.train) == 12
    assert result.metrics == {"search": {"mAP": 0.7}} == json.loads((tmp_path / "metrics.json").read_text())
    said = " ".join(capsys.readouterr().err.split())
    assert "2 identities (4 more held out for validation, 33% for data.validation 0.34, queries: 1)" in said
    assert said.count("(best so far)") == 3


def test_validation_is_of_people_and_frames_that_are_not_trained_on(frames, tmp_path, scores):
    train(validated(frames, tmp_path, epochs=1))
    [(dataset, _)] = scores
    facts = state_of(tmp_path).dataset
    assert not set(facts["train_frames"]) & {frame.name for frame in dataset.gallery}
    assert not set(facts["identities"]) & {query.identity for query in dataset.queries}
    assert len(facts["train_frames"]) + len(dataset.gallery) == 12


def test_validation_comes_every_few_epochs_and_after_the_last(frames, tmp_path, scores):
    result = train(validated(frames, tmp_path, epochs=3, validate_every=2))
    assert [entry["epoch"] for entry in result.validation] == [2, 3]


def test_validating_does_not_change_the_training(frames, tmp_path):
    """The real evaluation, which leaves the model in eval mode; both train on the same frames."""
    for name, every in (("often", 1), ("once", 2)):
        train(validated(frames, tmp_path / name, epochs=2, validate_every=every))
    assert same(state_of(tmp_path / "often").model, state_of(tmp_path / "once").model)


def test_evaluating_the_output_of_a_training(frames, tmp_path, monkeypatch):
    config = tiny(frames, tmp_path, epochs=1, evaluate=True)
    with pytest.raises(UsageError, match=r"no checkpoint to evaluate in \S+ \(neither best\.safetensors nor model"):
        evaluate_output(config)
    trained = train(config)
    (tmp_path / "metrics.json").unlink()
    found = evaluate_output(dataclasses.replace(config, train=dataclasses.replace(config.train, amp="fp16")))
    assert found.checkpoint == tmp_path / "model.safetensors"
    assert found.metrics == trained.metrics == json.loads((tmp_path / "metrics.json").read_text())
    (tmp_path / "model.safetensors").rename(tmp_path / "best.safetensors")
    monkeypatch.setattr(final, "evaluate", lambda *_, **__: {"search": {"mAP": 1.0}})
    assert evaluate_output(config).checkpoint == tmp_path / "best.safetensors"


def test_overwriting_forgets_the_best_of_before(frames, tmp_path, scores):
    train(validated(frames, tmp_path, epochs=1))
    result = train(tiny(frames, tmp_path, epochs=1), overwrite=True)
    assert result.checkpoint == tmp_path / "model.safetensors" and not (tmp_path / "best.safetensors").exists()
