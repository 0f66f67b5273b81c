"""What Table 2 puts between ARM's two 1x1 convolutions, against literal code, on maps of any shape."""

import math
import re

import pytest
import torch
from released_oracle import ChannelMixer, TokenMixer
from released_oracle import simam as literal_simam
from small_models import randomise
from torch import nn

from psarm.config import GATED, VARIANTS
from psarm.model.arm import Arm, make_mixer

CHANNELS = 64
SHAPES = [(14, 14), (24, 8), (3, 5)]
GATES = {  # mixing → (spatial gate, channel gate)
    "arm": (True, True),
    "relation_mixer": (True, True),
    "spatially_attended": (True, False),
    "channel_attended": (False, True),
    "mlp_mixer": (False, False),
}


def make(mixing, shape, layout="paper"):
    torch.manual_seed(0)
    mixer = make_mixer(mixing, CHANNELS, shape[0] * shape[1], 0.5, layout)
    randomise(mixer)
    return mixer.double().eval()


def rois(shape):
    return torch.randn(2, CHANNELS, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def with_weights_of(mixer, shape):
    """The same weights in the oracle's modules."""
    token, channel = TokenMixer(CHANNELS, shape[0] * shape[1]).double().eval(), ChannelMixer(CHANNELS).double().eval()
    for theirs, ours in ((token, mixer.token_mixer), (channel, mixer.channel_mixer)):
        theirs.norm.load_state_dict(ours.norm.state_dict())
        theirs.mlp.load_state_dict(ours.mlp.state_dict())
    if mixer.token_mixer.gate is not None:
        token.spatial_att.spatial.conv.load_state_dict(mixer.token_mixer.gate.conv.state_dict())
        token.spatial_att.spatial.bn.load_state_dict(mixer.token_mixer.gate.bn.state_dict())
    if mixer.channel_mixer.gate is not None:
        channel.channel_att.mlp[1].load_state_dict(mixer.channel_mixer.gate.fc1.state_dict())
        channel.channel_att.mlp[3].load_state_dict(mixer.channel_mixer.gate.fc2.state_dict())
    return token, channel


def tokens_of(x):
    return torch.stack([torch.stack([roi[:, i, j] for i in range(x.shape[2]) for j in range(x.shape[3])]) for roi in x])


def map_of(tokens, shape, layout):
    """[R,T,C] → [R,C,H,W]: cell by cell, or its memory as it lies."""
    if layout == "released":
        return torch.tensor(tokens.flatten().tolist(), dtype=torch.float64).view(len(tokens), CHANNELS, *shape)
    out = torch.empty(len(tokens), CHANNELS, *shape, dtype=torch.float64)
    for t in range(tokens.shape[1]):
        out[:, :, t // shape[1], t % shape[1]] = tokens[:, t]
    return out


def literal(x, mixer, mixing, layout):
    shape = x.shape[2:]
    token, channel = with_weights_of(mixer, shape)
    spatial_gate, channel_gate = GATES[mixing]
    t = tokens_of(x)

    def gated(t, gate):
        s = tokens_of(gate(map_of(t, shape, layout)))
        return t + s if layout == "released" else s

    v = token.norm(gated(t, token.spatial_gate) if spatial_gate else t)
    t = t + token.mlp(v.transpose(1, 2)).transpose(1, 2)
    v = channel.norm(gated(t, channel.channel_gate) if channel_gate else t)
    t = t + channel.mlp(v)
    out = map_of(t, shape, layout)
    if mixing == "arm":
        out = out + literal_simam(x)
    return out if mixing == "mlp_mixer" else out + x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("mixing", "layout"),
    [(m, layout) for m in GATES for layout in ("paper", "released") if m in GATED or layout == "paper"],
)
@torch.no_grad()
def test_mixers(mixing, layout, shape):
    mixer, x = make(mixing, shape, layout), rois(shape)
    torch.testing.assert_close(mixer(x), literal(x, mixer, mixing, layout), rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_spatio_channel_attention(shape):
    mixer, x = make("spatio_channel", shape), rois(shape)
    assert not list(mixer.parameters())
    torch.testing.assert_close(mixer(x), literal_simam(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_transformer_block(shape):
    """Against torch's own encoder layer with the same weights, on tokens with the positions added."""
    mixer, x = make("transformer", shape), rois(shape)
    layer = nn.TransformerEncoderLayer(CHANNELS, 2, 3 * CHANNELS, 0.5, "gelu", batch_first=True, norm_first=True)
    layer = layer.double().eval()
    layer.self_attn.in_proj_weight.copy_(mixer.qkv.weight)
    layer.self_attn.in_proj_bias.copy_(mixer.qkv.bias)
    layer.self_attn.out_proj.load_state_dict(mixer.project.state_dict())
    layer.linear1.load_state_dict(mixer.mlp.fc1.state_dict())
    layer.linear2.load_state_dict(mixer.mlp.fc2.state_dict())
    layer.norm1.load_state_dict(mixer.norm1.state_dict())
    layer.norm2.load_state_dict(mixer.norm2.state_dict())
    assert mixer.heads == 2
    expected = map_of(layer(tokens_of(x) + mixer.position), shape, "paper")
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-11)
    assert (mixer(x) - mixer(x.flip(2)).flip(2)).abs().max() > 1e-3  # positions matter


def test_heads_divide_the_channels():
    assert [make_mixer("transformer", channels, 4, 0.0, "paper").heads for channels in (8, 40, 96, 256)] == [1, 1, 3, 8]


def test_every_mixing_is_tested_here():
    used = {variant.mixing for variant in VARIANTS.values()} - {None}
    assert used == {*GATES, "spatio_channel", "transformer"}


def test_arm_takes_a_quarter_of_the_channels_and_either_kind_of_size():
    assert Arm(64).reduce.out_channels == 16
    assert Arm(64, 7).mixer.token_mixer.mlp.fc1.in_features == 49
    assert Arm(64, (24, 8)).mixer.token_mixer.mlp.fc1.in_features == math.prod((24, 8))
    assert Arm(64, (24, 8))(torch.randn(2, 64, 24, 8)).shape == (2, 64, 24, 8)


@pytest.mark.parametrize("mixing", [*GATES, "spatio_channel", "transformer"])
@pytest.mark.parametrize("shape", [(4, 12), (12, 5), (48, 1), (1, 1)])
def test_a_map_of_another_shape_is_refused(mixing, shape):
    arm = Arm(32, (12, 4), mixing=mixing)
    assert arm(torch.zeros(1, 32, 12, 4)).shape == (1, 32, 12, 4)
    given = re.escape(f"(2, 32, {shape[0]}, {shape[1]})")
    with pytest.raises(
        ValueError, match=rf"shape {given} came to .* maps of \(12, 4\) .*size=\({shape[0]}, {shape[1]}\)"
    ):
        arm(torch.zeros(2, 32, *shape))


@pytest.mark.parametrize("size", [7, (8, 4)])
def test_it_is_traced_with_any_number_of_rois(size):
    arm = Arm(32, size).eval()
    x = torch.randn(3, 32, *arm.size)
    dynamic = torch.export.export(arm, (x,), dynamic_shapes=({0: torch.export.Dim("R")},))
    more = torch.randn(5, 32, *arm.size)
    torch.testing.assert_close(dynamic.module()(more), arm(more), rtol=1e-5, atol=1e-5)
