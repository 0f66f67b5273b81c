"""The streaming benchmark on the toy bundle, and a stream's memory over many frames."""

import json

import pytest
import toy_bundle as toy
from click.testing import CliRunner
from clips import write_video

from psarm.benchmarks import streaming
from psarm.benchmarks.streaming import Pass, compare, main, summarise
from psarm.benchmarks.streaming_memory import memory_over, with_small_frames
from psarm.runtime import Bundle, PersonSearch


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


def test_memory_stays_flat(bundle):
    """The frames alone, kept, would be 88 MiB."""
    with PersonSearch(bundle, "onnxruntime", threads=2) as engine:
        memory = memory_over(engine, 1200, 160, batch=2)
    assert memory["frame_bytes"] * memory["frames"] > 80 * 2**20
    assert len(memory["resident_bytes"]) == 40
    assert memory["growth_bytes"] < 8 * 2**20


def test_a_bundle_for_small_frames(bundle):
    rule = with_small_frames(Bundle.open(bundle), 32).manifest.preprocessing
    assert (rule.min_size, rule.max_size, rule.mean) == (32, 64, toy.MEAN)


def test_ways_take_turns_after_a_round_to_warm_up():
    order = []

    def way(name, seconds):
        times = iter(seconds)
        return lambda: (order.append(name), Pass(next(times), 0.5, [1, 2], dict.fromkeys(streaming.STAGES, 0.1)))[1]

    passes = compare({"a": way("a", [9, 1, 2, 4]), "b": way("b", [9, 1, 1, 1])}, 3)
    assert order == ["a", "b"] * 4
    assert summarise(passes["a"]) == {
        "frames_per_second": 1.0,
        "frame_ms": [500.0, 1000.0, 2000.0],
        "cpu_seconds_per_frame": 0.25,
        "stages_ms": dict.fromkeys(streaming.STAGES, 50.0),
        "people": 3,
    }


def test_the_command(bundle, tmp_path):
    video, report = write_video(tmp_path / "clip.avi", 8), tmp_path / "report.json"
    words = [bundle, "--video", video, "--backend", "onnxruntime", "--threads", 2, "--rounds", 1, "--batch", 2]
    result = CliRunner().invoke(main, [str(word) for word in [*words, "--memory-frames", 80, "--json", report]])
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    speed = found["speed"]
    assert found["engine"] == {
        "backend": "onnxruntime",
        "precision": "fp32",
        "device": "CPU, 2 threads",
        "threads": 2,
    }
    assert speed["frames_with_other_people"] == 0 and speed["sequential"]["people"] == speed["stream"]["people"]
    assert speed["times_as_fast"] > 0 and 0 < speed["preprocessing_share"] < 1
    assert found["memory"]["frames"] == 80 and f"{speed['times_as_fast']:.2f} times as fast" in result.output


def test_a_drawn_video():
    with streaming.drawn_video(12, 240, 160) as path:
        frames = list(streaming.read_video(path))
    assert len(frames) == 12 and frames[0][1].shape == (160, 240, 3) and not path.exists()
