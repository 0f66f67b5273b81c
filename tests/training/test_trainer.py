import dataclasses
import json
import os
import weakref

import pytest
import torch
from accelerate import Accelerator
from tiny_runs import assert_equal, state_of, tiny

from psarm.data.loader import TrainingFrames, training_loader
from psarm.data.prw import read_prw
from psarm.errors import ConfigError, DataError, TrainingError, UsageError
from psarm.model.builder import build_model
from psarm.model.checkpoint import read_checkpoint
from psarm.training.report import Report
from psarm.training.schedule import learning_rate
from psarm.training.setup import fit_to_dataset, make_accelerator
from psarm.training.step import Stepper
from psarm.training.trainer import TrainingRun, seed_epoch, train


def with_workers(config, workers):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))


def with_recipe(config, **recipe):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **recipe))


@pytest.fixture(scope="module")
def straight(prw, tmp_path_factory):
    """The state after four epochs without a stop."""
    output = tmp_path_factory.mktemp("straight")
    train(tiny(prw, output, epochs=4, lr_steps=(1, 3), seed=1))
    return state_of(output)


def assert_same_training(state, straight):
    assert state.epoch == straight.epoch == 4
    assert state.optimizer["param_groups"][0]["lr"] == pytest.approx(0.003 * 0.01)
    for part in ("model", "optimizer", "losses"):
        assert_equal(getattr(state, part), getattr(straight, part), part)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_and_two_epochs_equal_four(prw, tmp_path, straight, workers):
    config = with_workers(tiny(prw, tmp_path, epochs=2, lr_steps=(1, 3), seed=1), workers)
    train(config)
    torch.rand(7)  # what happens between the two must not matter
    train(with_recipe(config, epochs=4), resume=True, allow_changes=True)
    assert_same_training(state_of(tmp_path), straight)
    tables = {name.rpartition(".")[2]: v for name, v in straight.model.items() if ".reid_loss." in name}
    assert tables.keys() == {"lut", "cq", "header"}
    assert tables["header"] > 0 and tables["lut"].abs().sum() > 0 and tables["cq"].abs().sum() > 0


def test_a_training_stopped_inside_an_epoch_equals_one_that_was_not(prw, tmp_path, straight, monkeypatch):
    config = tiny(prw, tmp_path, epochs=4, lr_steps=(1, 3), seed=1)
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
    for iteration, (images, targets, _) in enumerate(training_loader(frames, 2, 0, aspects=frames.read_aspects())):
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
    dataset = read_prw(prw)
    run = TrainingRun(fit_to_dataset(config, dataset), make_accelerator("no"), dataset, None, None)
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


def test_other_settings_are_refused_or_said_on_resuming(prw, tmp_path, capsys):
    train(tiny(prw, tmp_path, epochs=1))
    other = tiny(prw, tmp_path, epochs=2, lr=0.001)
    with pytest.raises(UsageError, match=r"other settings \(train\.epochs: 1 → 2; train\.lr: 0\.003 → 0\.001\)"):
        train(other, resume=True)
    assert state_of(tmp_path).epoch == 1
    train(other, resume=True, allow_changes=True)
    error = " ".join(capsys.readouterr().err.split())
    assert "Resuming after epoch 1 with other settings: train.epochs: 1 → 2; train.lr: 0.003 → 0.001." in error


def test_resuming_with_other_momentum_and_decay_uses_them(prw, tmp_path):
    train(tiny(prw, tmp_path, epochs=1))
    train(tiny(prw, tmp_path, epochs=2, momentum=0.5, weight_decay=0.0), resume=True, allow_changes=True)
    [group] = state_of(tmp_path).optimizer["param_groups"]
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.0)


def test_accumulated_batches_make_one_step(prw, tmp_path, capsys):
    """The oracle: torch alone; gradients of the mean of two batches' losses, one step."""
    config = tiny(prw, tmp_path, epochs=1, batch_size=1, accumulate=2, warmup_epochs=0.0, lr_batch=4, clip_norm=1e9)
    trained = train(config)
    said = capsys.readouterr().err
    assert "effective batch 2 = 1 x 2 batches, lr 0.0015 = 0.003 x 2/4" in " ".join(said.split())
    dataset = read_prw(prw)
    config = fit_to_dataset(config, dataset)
    seed_epoch(0, 0, 0)
    model = build_model(config.model).to(memory_format=torch.channels_last)
    frames = TrainingFrames(dataset.train, dataset.train_labels, 96, 160, config.train.flip, 0)
    optimizer = torch.optim.SGD(model.parameters(), 0.0015, momentum=0.9, weight_decay=5e-4)
    seed_epoch(0, 0, 0)
    totals = []
    loader = training_loader(frames, 1, 0, accumulate=2, aspects=frames.read_aspects())
    for number, (images, targets, _) in enumerate(loader):
        losses = model.losses([image.float() / 255 for image in images], targets)
        total = sum(getattr(config.train.loss_weights, name) * loss for name, loss in losses.items())
        (total / 2).backward()
        totals.append(total.item())
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
    assert len(totals) == 4 and trained.losses["total"] == pytest.approx(sum(totals) / 4, rel=1e-4)
    found = state_of(tmp_path).model
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_average_of_the_weights(prw, tmp_path, monkeypatch):
    """The oracle: a plain recursion over the weights after every step. Resuming goes on with it."""
    oracle = {}

    def follow(stepper, *arguments):
        found = step(stepper, *arguments)
        for name, value in stepper.model.named_parameters():
            oracle[name] = 0.7 * oracle[name] + 0.3 * value.detach() if name in oracle else value.detach().clone()
        return found

    step = Stepper.step
    monkeypatch.setattr(Stepper, "step", follow)
    config = tiny(prw, tmp_path, epochs=1, ema=0.7, warmup_epochs=0.0)
    train(config)
    train(with_recipe(config, epochs=2), resume=True, allow_changes=True)
    state = state_of(tmp_path)
    saved = read_checkpoint(tmp_path / "model.safetensors").state
    for name, value in saved.items():
        assert torch.equal(value, state.average[f"module.{name}"])
        if name in oracle:
            torch.testing.assert_close(value, oracle[name], rtol=1e-5, atol=1e-7, msg=name)
        else:
            assert torch.equal(value, state.model[name]), name  # a buffer
    assert any(not torch.equal(saved[name], state.model[name]) for name in oracle)
    assert state.average["n_averaged"] == 4


def test_the_average_can_begin_later(prw, tmp_path):
    train(tiny(prw, tmp_path, epochs=1))
    train(tiny(prw, tmp_path, epochs=2, ema=0.5), resume=True, allow_changes=True)
    assert state_of(tmp_path).average["n_averaged"] == 2
    train(tiny(prw, tmp_path, epochs=3), resume=True, allow_changes=True)
    assert state_of(tmp_path).average == {}


@pytest.fixture
def own_determinism(monkeypatch):
    """What `train.deterministic` sets holds for the process: let a test have its own."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.usefixtures("own_determinism")
def test_two_deterministic_runs_are_the_same_bits(prw, tmp_path):
    for name in ("one", "other"):
        train(tiny(prw, tmp_path / name, epochs=1, deterministic=True, warmup_epochs=0.0))
    assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    one, other = state_of(tmp_path / "one"), state_of(tmp_path / "other")
    for part in ("model", "optimizer", "losses"):
        assert_equal(getattr(one, part), getattr(other, part), part)


def test_divergence_stops_with_the_last_checkpoint_kept(prw, tmp_path):
    train(tiny(prw, tmp_path, epochs=1))
    kept = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"diverged in epoch 2, iteration 2: .* is (nan|inf)") as error:
        other = tiny(prw, tmp_path, epochs=3, lr=1e30, clip_norm=1e30, warmup_epochs=0.0, lr_steps=())
        train(other, resume=True, allow_changes=True)
    assert f"{tmp_path / 'last.pt'} holds epoch 1." in str(error.value)
    assert (tmp_path / "last.pt").read_bytes() == kept


def test_bf16_trains(prw, tmp_path, fresh_accelerator):
    result = train(tiny(prw, tmp_path, epochs=1, amp="bf16"))
    state = state_of(tmp_path)
    assert all(value.dtype != torch.bfloat16 for value in state.model.values())
    assert result.losses["total"] == pytest.approx(sum(v for k, v in result.losses.items() if k != "total"), rel=1e-6)


def test_the_model_is_gone_before_the_process_group_is(prw, tmp_path, fresh_accelerator, monkeypatch):
    """The other way round Gloo's threads and the interpreter wait for each other in one training of five or so."""
    made, left = [], []
    begin, end = Stepper.__init__, Accelerator.end_training

    def remember(stepper, *arguments):
        begin(stepper, *arguments)
        made.extend((weakref.ref(stepper), weakref.ref(stepper.losses)))

    def look(accelerator):
        left.append([one() for one in made])
        end(accelerator)

    monkeypatch.setattr(Stepper, "__init__", remember)
    monkeypatch.setattr(Accelerator, "end_training", look)
    train(tiny(prw, tmp_path, epochs=1, ema=0.9))
    assert left == [[None, None]]


def test_what_cannot_start_says_why(prw, tmp_path):
    with pytest.raises(ConfigError, match="fp16, which needs a GPU"):
        train(tiny(prw, tmp_path / "a", amp="fp16"))
    with pytest.raises(ConfigError, match=r"batch_size is 5; needed at most the 4 training frames"):
        train(tiny(prw, tmp_path / "b", batch_size=5))
    with pytest.raises(ConfigError, match=r"batch_size is 2, times train\.accumulate 3; needed at most the 4 training"):
        train(tiny(prw, tmp_path / "b", accumulate=3))
    with pytest.raises(UsageError, match="no training to resume"):
        train(tiny(prw, tmp_path / "c"), resume=True)
    dataset = dataclasses.replace(read_prw(prw), train=[])
    with pytest.raises(DataError, match="no training frame with an identified person"):
        fit_to_dataset(tiny(prw, tmp_path), dataset)
    assert list(tmp_path.iterdir()) == []
