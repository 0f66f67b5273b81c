"""ARM in both layouts against literal code, and pinned by golden numbers."""

import math

import pytest
import torch
from released_oracle import ChannelMixer, TokenMixer, paper_mixer, released_mixer
from released_oracle import simam as literal_simam
from torch import nn

from psarm.model.arm import Arm, simam, to_map, to_tokens

CHANNELS, REDUCED, SIDE = 24, 32, 6
LITERAL = {"paper": paper_mixer, "released": released_mixer}
# Sum, sum of squares and three single values of the output for the input and weights of `fill`.
GOLDEN = {
    "paper": [247.206707200126, 4608.281159803168, -0.681738511999108, 2.536013162822901, -0.8696467199923742],
    "released": [310.1490630607974, 34647.03208947148, 2.9106178351328293, 5.392563138777373, -6.153477485009703],
}


def fill(module):
    """Weights without a random generator, the same on every machine and version."""
    with torch.no_grad():
        for number, (name, value) in enumerate(sorted(module.state_dict().items())):
            if name.endswith("num_batches_tracked"):
                continue
            wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * (0.7 + 0.13 * number) + number)
            fan = math.prod(value.shape[1:]) if value.dim() > 1 else 1
            positive = name.endswith("running_var") or "norm.weight" in name or "bn.weight" in name
            value.copy_((1 + 0.5 * wave if positive else wave * math.sqrt(2 / fan)).reshape(value.shape))


def make(layout):
    arm = Arm(CHANNELS, SIDE, REDUCED, 0.5, layout).double().eval()
    fill(arm)
    return arm


def rois(count=3):
    wave = torch.arange(count * CHANNELS * SIDE * SIDE, dtype=torch.float64)
    return torch.sin(wave * 0.37).reshape(count, CHANNELS, SIDE, SIDE) + 0.3 * torch.cos(wave * 1.9).reshape(
        count, CHANNELS, SIDE, SIDE
    )


def literal(arm, layout, x):
    """The same weights in the oracle's modules."""
    token, channel = TokenMixer(REDUCED, SIDE * SIDE).double().eval(), ChannelMixer(REDUCED).double().eval()
    ours = arm.mixer
    for theirs, mixer in ((token, ours.token_mixer), (channel, ours.channel_mixer)):
        theirs.norm.load_state_dict(mixer.norm.state_dict())
        theirs.mlp.load_state_dict(mixer.mlp.state_dict())
    token.spatial_att.spatial.conv.load_state_dict(ours.token_mixer.gate.conv.state_dict())
    token.spatial_att.spatial.bn.load_state_dict(ours.token_mixer.gate.bn.state_dict())
    channel.channel_att.mlp[1].load_state_dict(ours.channel_mixer.gate.fc1.state_dict())
    channel.channel_att.mlp[3].load_state_dict(ours.channel_mixer.gate.fc2.state_dict())
    return LITERAL[layout](x, token, channel)


@pytest.mark.parametrize("layout", ["paper", "released"])
@torch.no_grad()
def test_equals_the_literal_mixer(layout):
    arm, x = make(layout), rois()
    expected = arm.expand(literal(arm, layout, arm.reduce(x)))
    torch.testing.assert_close(arm(x), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("layout", ["paper", "released"])
@torch.no_grad()
def test_golden(layout):
    y = make(layout)(rois())
    found = [y.sum(), y.square().sum(), y[0, 0, 0, 0], y[1, 11, 2, 4], y[2, 23, 5, 5]]
    assert [float(v) for v in found] == pytest.approx(GOLDEN[layout], rel=1e-9)


def test_layouts_of_a_map():
    x = torch.arange(2 * 5 * 3 * 4.0).reshape(2, 5, 3, 4)
    tokens = to_tokens(x)
    assert tokens.shape == (2, 12, 5)
    assert torch.equal(tokens[1, 7], x[1, :, 1, 3])  # token 7 is row 1, column 3
    assert torch.equal(to_map(tokens, 3, 4, "paper"), x)
    released = to_map(tokens, 3, 4, "released")
    assert torch.equal(released.flatten(), tokens.contiguous().flatten())
    assert not torch.equal(released, x)


class Recorder(nn.Module):
    """A gate that notes what it is given and answers a fixed scale of it."""

    def forward(self, x):
        self.seen = x
        return x * 0.25


@pytest.mark.parametrize("layout", ["paper", "released"])
@torch.no_grad()
def test_what_a_gate_sees_and_what_its_answer_does(layout):
    """paper: the straight map, and the norm gets F' ⊙ M; released: the scrambled map, and the norm gets t + S(t)."""
    mixer = make(layout).mixer.token_mixer
    mixer.gate = Recorder()
    normed = []
    mixer.norm.register_forward_hook(lambda module, inputs, output: normed.append(inputs[0]))
    x = rois()[:, :1].expand(-1, REDUCED, -1, -1) * torch.arange(1.0, REDUCED + 1).double()[:, None, None]
    tokens = to_tokens(x).contiguous()
    mixer(tokens, SIDE, SIDE)
    scrambled = tokens.reshape(3, REDUCED, SIDE, SIDE)
    if layout == "paper":
        assert torch.equal(mixer.gate.seen, x)
        assert torch.equal(normed[0], tokens * 0.25)
    else:
        assert torch.equal(mixer.gate.seen, scrambled)
        assert torch.equal(normed[0], tokens + 0.25 * to_tokens(scrambled))


@pytest.mark.parametrize("layout", ["paper", "released"])
def test_training_drops_after_each_linear_of_the_mlps_only(layout):
    arm = make(layout)
    mlps = (arm.mixer.token_mixer.mlp, arm.mixer.channel_mixer.mlp)
    assert [type(m).__name__ for m in arm.modules()].count("Dropout") == 2
    x = torch.sin(torch.arange(4 * REDUCED, dtype=torch.float64)).reshape(4, REDUCED)
    mlp = mlps[1].train()
    torch.manual_seed(5)
    ours = mlp(x)
    torch.manual_seed(5)
    hidden = nn.functional.dropout(nn.functional.gelu(mlp.fc1(x)), 0.5)
    assert torch.equal(ours, nn.functional.dropout(mlp.fc2(hidden), 0.5))
    assert (ours == 0).any()


def test_simam():
    for x in (rois(2), 0.01 * rois(2), torch.ones(1, 2, 3, 3, dtype=torch.float64)):  # λ tells on even maps
        torch.testing.assert_close(simam(x), literal_simam(x), rtol=0, atol=1e-13)


def test_no_roi():
    assert make("paper")(torch.zeros(0, CHANNELS, SIDE, SIDE, dtype=torch.float64)).shape == (0, CHANNELS, SIDE, SIDE)
