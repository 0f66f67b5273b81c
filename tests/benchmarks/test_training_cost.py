import json

import pytest
import torch
from click.testing import CliRunner

from psarm.benchmarks import training_cost
from psarm.config import ModelConfig


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


def test_report(tmp_path):
    path = tmp_path / "report.json"
    arguments = ["--quick", "--rounds", "1", "--steps", "1", "--json", str(path)]
    result = CliRunner().invoke(training_cost.main, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert [case["part"] for case in report["cases"]] == ["oim", "step"]
    for case in report["cases"]:
        for kind in training_cost.KINDS:
            assert case[kind]["seconds"] > 0 and case[kind]["peak_mib"] > 100
    assert report["threads"] == 1
    assert report["command"].startswith("python -m psarm.benchmarks.training_cost")
    for word in ("literal", "psarm", "MiB"):
        assert word in result.output
