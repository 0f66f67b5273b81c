"""Making a release file: half the size, the same model."""

import torch
from click.testing import CliRunner

from psarm.benchmarks.release import main
from psarm.model import load_model
from psarm.model.checkpoint import read_checkpoint, save_model


def test_weights_are_halved_and_what_it_was_trained_on_stays(tmp_path, model):
    about = {"name": "prw", "train_frames": 4, "identities": 3}
    save_model(model, tmp_path / "full.safetensors", about)
    result = CliRunner().invoke(main, [str(tmp_path / "full.safetensors"), str(tmp_path / "half.safetensors")])
    assert result.exit_code == 0, result.output
    full, half = (tmp_path / f"{name}.safetensors" for name in ("full", "half"))
    assert half.stat().st_size < 0.7 * full.stat().st_size
    assert read_checkpoint(half).dataset == about
    loaded = load_model(half).state_dict()
    for name, value in model.state_dict().items():
        assert loaded[name].dtype == value.dtype
        torch.testing.assert_close(loaded[name], value, rtol=1e-3, atol=1e-6)
