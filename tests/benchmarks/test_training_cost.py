import json

import pytest
import torch
from click.testing import CliRunner

from psarm.benchmarks import training_cost
from psarm.config import ModelConfig
from psarm.model import PersonSearchModel


@pytest.mark.parametrize("labels", [[0, 2, -1, 2, -2, -1, -1, 1], [-1, -2], [3, 3, 3]])
def test_both_kinds_compute_the_same(labels):
    config = ModelConfig(embedding_dim=8, num_identities=4, queue_size=2)
    answers = []
    for kind in training_cost.KINDS:
        torch.manual_seed(0)
        oim = training_cost.make_oim(kind, config).double()
        torch.testing.assert_close(oim.lut.norm(dim=1), torch.ones(4).double(), rtol=1e-6, atol=0)
        embeddings = torch.nn.functional.normalize(torch.randn(len(labels), 8).double(), dim=1).requires_grad_()
        losses = []
        for _ in range(2):  # the second from the tables that the first left
            loss = oim(embeddings, torch.tensor(labels))
            loss.backward()
            losses.append(loss.detach())
        answers.append([*losses, embeddings.grad, *oim.buffers()])
    for literal, ours in zip(*answers, strict=True):
        torch.testing.assert_close(ours, literal, rtol=0, atol=1e-12)


def test_both_kinds_take_the_same_training_steps(monkeypatch):
    """Losses of the first step, and of the second, from the weights and tables that the first left."""
    computed, found = PersonSearchModel.losses, []

    def losses(*arguments):
        found.append(computed(*arguments))
        return found[-1]

    monkeypatch.setattr(PersonSearchModel, "losses", losses)
    for kind in training_cost.KINDS:
        torch.manual_seed(0)
        step = training_cost.make_training_step(kind, training_cost.Case("step", 1, 50, 60))
        step()
        step()
    literal, ours = found[:2], found[2:]
    assert literal[0]["oim"] != literal[1]["oim"] and len(ours) == 2
    torch.testing.assert_close(ours, literal, rtol=1e-5, atol=1e-6)


def test_summary_is_of_all_steps_of_all_processes():
    runs = [
        {"seconds": [0.5, 9.0, 0.2], "cpu_seconds": [0.1, 0.1, 0.4], "mib_before": 100.4, "peak_mib": 150.2},
        {"seconds": [0.3, 0.4], "cpu_seconds": [0.2, 0.300004], "mib_before": 101.0, "peak_mib": 191.0},
    ]
    assert training_cost._summary(runs) == {
        "seconds": 0.4,
        "cpu_seconds": 0.2,
        "steps_per_second": 2.5,
        "peak_mib": 171,  # the mean of two, as the median of an even number is
        "step_mib": 70,
    }


def test_report(tmp_path):
    path = tmp_path / "report.json"
    arguments = ["--quick", "--rounds", "1", "--steps", "1", "--json", str(path)]
    result = CliRunner().invoke(training_cost.main, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert [case["part"] for case in report["cases"]] == ["oim", "step"]
    for case in report["cases"]:
        for kind in training_cost.KINDS:
            assert case[kind].keys() == {"seconds", "cpu_seconds", "steps_per_second", "peak_mib", "step_mib"}
    assert report["threads"] == 1
    assert report["command"].startswith("python -m psarm.benchmarks.training_cost")
    for word in ("literal", "psarm", "MiB"):
        assert word in result.output
