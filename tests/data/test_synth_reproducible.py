"""The same settings give the same files, whoever draws them."""

from pathlib import Path

import pytest

from psarm.data.synth import SynthSettings, generate_dataset

TINY = {"frames": 12, "identities": 4, "width": 112, "height": 64, "people_per_frame": 2.0}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("alone") / "prw"
    generate_dataset(root, SynthSettings(**TINY, seed=5), workers=1)
    return contents(root)


def test_two_workers_draw_the_same_bytes(alone, tmp_path):
    generate_dataset(tmp_path / "prw", SynthSettings(**TINY, seed=5), workers=2)
    assert contents(tmp_path / "prw") == alone


def test_another_seed_draws_another_world(alone, tmp_path):
    generate_dataset(tmp_path / "prw", SynthSettings(**TINY, seed=6))
    other = contents(tmp_path / "prw")
    frames = [name for name in alone if name.startswith("frames/")]
    assert frames
    assert all(other.get(name) != alone[name] for name in frames)
