"""The relation mixer's graph against the model's own, in float64."""

import pytest
import torch
from small_models import randomise

from psarm.export.mixer import ChannelGateGraph, MixerGraph, SpatialGateGraph
from psarm.model.arm import ChannelGate, SpatialGate, make_mixer

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("layout", ["paper", "released"])
@pytest.mark.parametrize("rois, height, width", [(1, 14, 14), (3, 7, 5), (2, 4, 9)])
def test_mixer(layout, rois, height, width):
    torch.manual_seed(rois)
    mixer = make_mixer("arm", 16, height * width, 0.5, layout)
    randomise(mixer)
    mixer = mixer.eval().double()
    x = torch.randn(rois, 16, height, width, dtype=torch.float64)
    torch.testing.assert_close(MixerGraph(mixer)(x), mixer(x), **EXACT)


def test_layouts_differ():
    torch.manual_seed(0)
    paper, released = (make_mixer("arm", 16, 49, 0.5, layout).eval() for layout in ("paper", "released"))
    released.load_state_dict(paper.state_dict())
    x = torch.randn(2, 16, 7, 7)
    assert (MixerGraph(paper)(x) - MixerGraph(released)(x)).abs().max() > 0.1


@pytest.mark.parametrize("kind, graph", [(SpatialGate, SpatialGateGraph), (lambda: ChannelGate(8), ChannelGateGraph)])
def test_gates(kind, graph):
    torch.manual_seed(0)
    gate = kind()
    randomise(gate)
    gate = gate.eval().double()
    x = torch.randn(2, 8, 6, 5, dtype=torch.float64)
    cells = x.flatten(2)
    gated = cells * graph(gate)(cells, 6, 5)
    torch.testing.assert_close(gated.reshape_as(x), gate(x), **EXACT)


def test_a_gate_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="SpatialGate"):
        SpatialGateGraph(ChannelGate(8))
    with pytest.raises(TypeError, match="ChannelGate"):
        ChannelGateGraph(SpatialGate())
