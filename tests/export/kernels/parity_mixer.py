"""ARM's pointwise chain in Triton's interpreter; run by `test_kernels.py` in a process of its own."""

import json

import pytest
import torch
from click.testing import CliRunner

from psarm.benchmarks.gpu_kernels import main
from psarm.errors import PsarmError
from psarm.export.kernels import mixer, reference
from psarm.export.kernels.fused_mixer import FusedMixer, aligned
from psarm.export.mixer import mixer_graph
from psarm.model.arm import make_mixer

TYPES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Tolerance relative to the largest value: one rounding of the answer, computed in float32."""
CASES = [
    ((2, 15, 20), torch.float32),
    ((1, 70, 9), torch.float16),
    ((2, 6, 70), torch.bfloat16),
    ((1, 3, 260), torch.float32),
    ((0, 4, 4), torch.float16),
]
"""[R,T,C]: odd, more tokens and more channels than a tile has, nothing."""


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def check(ours, theirs, tolerance):
    largest = max(1.0, float(theirs.abs().max())) if theirs.numel() else 1.0
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("scrambled", [False, True])
@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
class TestSteps:
    def test_pool(self, shape, scrambled, dtype):
        x, y, bias = draw(*shape).to(dtype), draw(*shape, seed=1).to(dtype), draw(shape[1])
        for over in ("channels", "tokens"):
            for more in ((), (y, bias)):
                total, pooled = mixer.pool(x, over, scrambled, *more)
                wanted, wanted_pooled = reference.pool(x, over, scrambled, *more)
                assert total.dtype == dtype and pooled.dtype == torch.float32
                check(total, wanted, TYPES[dtype])
                check(pooled, wanted_pooled, TYPES[dtype])

    def test_gate_norm(self, shape, scrambled, dtype):
        count, tokens, channels = shape
        x, weight, bias = draw(*shape).to(dtype), draw(channels, seed=1), draw(channels, seed=2)
        for logits in (None, draw(count, tokens, 1, seed=3), draw(count, 1, channels, seed=3)):
            given = (x, logits, scrambled, weight, bias, 1e-5, dtype)
            check(mixer.gate_norm(*given), reference.gate_norm(*given), TYPES[dtype])

    def test_add_simam(self, shape, scrambled, dtype):
        x, y, z = (draw(*shape, seed=seed).to(dtype) for seed in range(3))
        for attend, reuse in ((True, True), (True, False), (False, True)):
            given = (x, y, z, scrambled, attend, reuse)
            check(mixer.add_simam(*given), reference.add_simam(*given), TYPES[dtype])


@pytest.mark.parametrize(("shape", "dtype"), [*CASES, ((2, 60, 50), torch.float16)], ids=str)
def test_bias_gelu(shape, dtype):
    x, bias = 3 * draw(*shape).to(dtype), draw(shape[1], seed=1)
    expected = reference.bias_gelu_(x.clone(), bias)
    assert mixer.bias_gelu_(x, bias) is x
    check(x, expected, TYPES[dtype])


@pytest.mark.parametrize("layout", ["paper", "released"])
@pytest.mark.parametrize("mixing", ["arm", "relation_mixer", "spatially_attended", "channel_attended", "mlp_mixer"])
def test_the_whole_mixer(mixing, layout):
    """As the model's own, of which it is three steps away; maps whose channels come first too."""
    torch.manual_seed(0)
    original = make_mixer(mixing, 12, 15, 0.5, layout).eval()
    for parameter in original.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = draw(2, 12, 3, 5)
    with torch.inference_mode():
        expected = original(x)
        fused = FusedMixer(mixer_graph(original), torch.float32)
        answer = fused(x.contiguous(memory_format=torch.channels_last) if layout == "paper" else x)
        assert answer.is_contiguous(memory_format=torch.channels_last)
        check(answer, expected, 1e-6)
        if mixing == "arm":
            check(FusedMixer(mixer_graph(original), torch.bfloat16)(x), expected, 3e-2)


def test_rows_of_a_matrix_begin_at_multiples_of_16_bytes():
    matrix = draw(6, 13)
    for dtype in (torch.float16, torch.float32):
        answer = aligned(matrix, dtype)
        assert torch.equal(answer, matrix.to(dtype)) and answer.stride() == (16, 1)


def test_the_benchmark_compares_every_kernel(tmp_path):
    done = CliRunner().invoke(main, ["--json", str(tmp_path / "kernels.json")], catch_exceptions=False)
    assert done.exit_code == 0
    rows = json.loads((tmp_path / "kernels.json").read_text())["rows"]
    assert len(rows) == 9
    assert all(row["error"] < 1e-5 and row["ms"] is None and row["failure"] is None for row in rows)


def test_a_kernel_that_fails_is_a_row_and_the_others_are_measured(monkeypatch, tmp_path):
    def wrong(*given):
        return reference.add_simam(*given) + 1

    def broken(*given):
        raise RuntimeError("no such register")

    monkeypatch.setattr(mixer, "add_simam", wrong)
    monkeypatch.setattr(mixer, "gate_norm", broken)
    with pytest.raises(PsarmError) as caught:
        main.main(["--json", str(tmp_path / "kernels.json")], standalone_mode=False)
    assert "gate_norm, float32: RuntimeError: no such register" in str(caught.value)
    assert "add_simam, float32: It differs from its PyTorch form by " in str(caught.value)
    rows = json.loads((tmp_path / "kernels.json").read_text())["rows"]
    assert [row["kernel"] for row in rows if row["failure"]] == ["gate_norm", "add_simam"]
