import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from runs import state_of, tiny

from psarm.data.loader import TrainingFrames, training_loader
from psarm.data.prw import read_prw
from psarm.errors import ConfigError, DataError, TrainingError, UsageError
from psarm.model.builder import build_model
from psarm.training.report import Report
from psarm.training.schedule import learning_rate
from psarm.training.setup import fit_to_dataset, make_accelerator
from psarm.training.trainer import TrainingRun, seed_epoch, train


def assert_equal(one, other, where="state"):
    """Bit for bit, through dicts and lists."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    else:
        assert one == other, where


def with_workers(config, workers):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))


def with_recipe(config, **recipe):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **recipe))


@pytest.fixture(scope="module")
def straight(prw, tmp_path_factory):
    """The state after four epochs without a stop."""
    output = tmp_path_factory.mktemp("straight")
    train(tiny(prw, output, epochs=4, lr_steps=(1, 3)))
    return state_of(output)


def assert_same_training(state, straight):
    assert state.epoch == straight.epoch == 4
    assert state.optimizer["param_groups"][0]["lr"] == pytest.approx(0.003 * 0.01)
    for part in ("model", "optimizer", "losses"):
        assert_equal(getattr(state, part), getattr(straight, part), part)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_and_two_epochs_equal_four(prw, tmp_path, straight, workers):
    config = with_workers(tiny(prw, tmp_path, epochs=2, lr_steps=(1, 3)), workers)
    train(config)
    torch.rand(7)  # what happens between the two must not matter
    train(with_recipe(config, epochs=4), resume=True)
    assert_same_training(state_of(tmp_path), straight)
    tables = {name.rpartition(".")[2]: v for name, v in straight.model.items() if ".reid_loss." in name}
    assert tables.keys() == {"lut", "cq", "header"}
    assert tables["header"] > 0 and tables["lut"].abs().sum() > 0 and tables["cq"].abs().sum() > 0


def test_a_training_stopped_inside_an_epoch_equals_one_that_was_not(prw, tmp_path, straight, monkeypatch):
    config = tiny(prw, tmp_path, epochs=4, lr_steps=(1, 3))
    shown = Report.iteration

    def stop(report, iteration, *rest):
        shown(report, iteration, *rest)
        if iteration == 4:  # the first of epoch 3
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Report, "iteration", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert state_of(tmp_path).epoch == 2
    train(config, resume=True)
    assert_same_training(state_of(tmp_path), straight)


def test_an_epoch_equals_a_plain_loop(prw, tmp_path):
    """The oracle: torch alone, written out."""
    config = tiny(prw, tmp_path, epochs=1, warmup_epochs=0.5, clip_norm=0.5, flip=0.5, seed=3)
    train(config)

    dataset = read_prw(prw)
    config = fit_to_dataset(config, dataset)
    recipe, weights = config.train, config.train.loss_weights
    seed_epoch(3, 0, 0)
    model = build_model(config.model).to(memory_format=torch.channels_last)
    sizes = (config.model.min_size, config.model.max_size)
    frames = TrainingFrames(dataset.train, dataset.train_labels, *sizes, recipe.flip, recipe.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=5e-4)
    seed_epoch(3, 0, 0)
    for iteration, (images, targets, _) in enumerate(training_loader(frames, 2, 0)):
        losses = model.losses([image.float() / 255 for image in images], targets)
        total = sum(getattr(weights, name) * loss for name, loss in losses.items())
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, iteration, 2)
        optimizer.step()
    trained = state_of(tmp_path).model
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_every_trainable_parameter_moves(prw, tmp_path):
    config = tiny(prw, tmp_path, epochs=1, warmup_epochs=0.0, lr=0.01, weight_decay=0.0)
    run = TrainingRun(fit_to_dataset(config, read_prw(prw)), read_prw(prw), None)
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    run.fit()
    still = [name for name, value in run.model.named_parameters() if torch.equal(value, before[name])]
    assert not still


def test_a_finished_training_can_be_evaluated_again(prw, tmp_path):
    config = tiny(prw, tmp_path, epochs=1, evaluate=True)
    first = train(config)
    (tmp_path / "metrics.json").unlink()
    again = train(config, resume=True)
    assert again.metrics == first.metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert again.losses == first.losses and again.epochs == 1


def test_overwrite_starts_again(prw, tmp_path):
    train(tiny(prw, tmp_path, epochs=2, evaluate=True))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    train(tiny(prw, tmp_path, epochs=1), overwrite=True)
    assert state_of(tmp_path).epoch == 1
    assert not (tmp_path / "metrics.json").exists()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_changed_settings_are_said_on_resuming(prw, tmp_path, capsys):
    train(tiny(prw, tmp_path, epochs=1))
    train(tiny(prw, tmp_path, epochs=2, lr=0.001), resume=True)
    error = " ".join(capsys.readouterr().err.split())
    assert "Resuming after epoch 1 with other settings: train.epochs: 1 → 2; train.lr: 0.003 → 0.001." in error


def test_resuming_with_other_momentum_and_decay_uses_them(prw, tmp_path):
    train(tiny(prw, tmp_path, epochs=1))
    train(tiny(prw, tmp_path, epochs=2, momentum=0.5, weight_decay=0.0), resume=True)
    [group] = state_of(tmp_path).optimizer["param_groups"]
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.0)


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr("psarm.training.setup.Accelerator", lambda **_: SimpleNamespace(num_processes=2))
    with pytest.raises(UsageError, match="started as 2 processes; this version trains in one"):
        make_accelerator("no")


@pytest.mark.parametrize("lr", [1e30, 1e10], ids=["in the losses", "in the gradients"])
def test_divergence_stops_with_the_last_checkpoint_kept(prw, tmp_path, lr):
    train(tiny(prw, tmp_path, epochs=1))
    kept = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"diverged in epoch \d+, iteration [12]: .* is (nan|inf)") as error:
        train(tiny(prw, tmp_path, epochs=30, lr=lr, clip_norm=1e30, warmup_epochs=0.0, lr_steps=()), resume=True)
    assert str(tmp_path / "last.pt") in str(error.value)
    if "epoch 2" in str(error.value):
        assert (tmp_path / "last.pt").read_bytes() == kept
    assert all(value.isfinite().all() for value in state_of(tmp_path).model.values())


def test_bf16_trains(prw, tmp_path, fresh_accelerator):
    result = train(tiny(prw, tmp_path, epochs=1, amp="bf16"))
    state = state_of(tmp_path)
    assert all(value.dtype != torch.bfloat16 for value in state.model.values())
    assert result.losses["total"] == pytest.approx(sum(v for k, v in result.losses.items() if k != "total"), rel=1e-6)


def test_what_cannot_start_says_why(prw, tmp_path):
    with pytest.raises(ConfigError, match="fp16, which needs a GPU"):
        train(tiny(prw, tmp_path / "a", amp="fp16"))
    with pytest.raises(ConfigError, match=r"batch_size is 5; needed at most the 4 training frames"):
        train(tiny(prw, tmp_path / "b", batch_size=5))
    with pytest.raises(UsageError, match="no training to resume"):
        train(tiny(prw, tmp_path / "c"), resume=True)
    dataset = dataclasses.replace(read_prw(prw), train=[])
    with pytest.raises(DataError, match="no training frame with an identified person"):
        fit_to_dataset(tiny(prw, tmp_path), dataset)
    assert list(tmp_path.iterdir()) == []
