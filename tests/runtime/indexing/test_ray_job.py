"""Detection in parts: by the workers of a local Ray, and as they would do it, without."""

import os
import signal
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import toy_bundle as toy
from made_up_readers import MadeUp, scene

from psarm.errors import ImageError, StreamError, UsageError
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import Source
from psarm.runtime.indexing import ray_job
from psarm.runtime.indexing.detecting import detect_with
from psarm.runtime.indexing.events import Ended, Failed, Found, Skipped
from psarm.runtime.indexing.indexer import CommitEvery, Indexer
from psarm.runtime.indexing.ray_job import EngineOptions, RayOptions, Worker, detect_on_ray
from psarm.runtime.indexing.reading import Skip
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.video_file import VideoReader

FRAMES = 200
STOP = 30


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "scenes.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 96))
    for number in range(FRAMES):
        writer.write(scene(number % 20))
    writer.release()
    return path


def reader(video):
    return VideoReader(str(video), Source(str(video), "door", "video"), Sampling(), lambda note: None)


@pytest.fixture
def here(bundle, monkeypatch):
    """The job of `detect_on_ray`, one part after the other in this process."""

    def dataset(chunks, engine, options):
        worker = Worker(engine, options.batch, options.thumbnails)
        rows = [worker({"chunk": np.array([ray_job.pickle.dumps(chunk)], object)}) for chunk in chunks]
        return SimpleNamespace(iter_rows=lambda: ({"events": row["events"][0]} for row in rows))

    monkeypatch.setattr(ray_job, "_dataset", dataset)
    monkeypatch.setattr(ray_job, "connected", lambda address, threads: nullcontext())
    return EngineOptions(bundle, "onnxruntime")


class Parts(MadeUp):
    """`MadeUp` in parts."""

    def chunks(self, frames_per_chunk, after=-1):
        cuts = [*range(0, self.frames, frames_per_chunk), self.frames]
        return [Part(self.source.name, *cut, self.damaged, self.breaks) for cut in pairwise(cuts)]


class Part:
    """Of `Parts`."""

    def __init__(self, source, start, end, damaged, breaks):
        self.source, self.range, self.damaged, self.breaks = source, (start, end), damaged, breaks

    def read(self):
        start, end = self.range
        whole = MadeUp(self.source, end, damaged=self.damaged, breaks=self.breaks)
        return (one for one in whole.read() if one.frame >= start * 500_000)


def test_what_comes_back_is_what_one_process_gives(here, engine):
    with detect_with(engine)([(MadeUp("a", 10), -1)]) as events:
        whole = list(filter(None, events))
    with detect_on_ray(here, RayOptions(frames_per_chunk=3))([(Parts("a", 10), -1)]) as events:
        parts = list(events)
    assert [type(event) for event in parts] == [Found] * 10 + [Ended]
    for one, other in zip(parts[:-1], whole[:-1], strict=True):
        assert (one.source, one.frame, one.time) == (other.source, other.frame, other.time)
        assert one.size == other.size
        assert one.people.boxes.tolist() == other.people.boxes.tolist()
        assert one.people.embeddings.tolist() == other.people.embeddings.tolist()
        assert [one.thumbnail(n) for n in range(len(one.people))] == [
            other.thumbnail(n) for n in range(len(one.people))
        ]


def test_after_a_failure_the_rest_of_the_source_waits(here):
    readers = [(Parts("a", 9, breaks=4, damaged=(1,)), -1), (Parts("b", 4), -1), (Parts("c", 0), -1)]
    with detect_on_ray(here, RayOptions(frames_per_chunk=3, thumbnails=False))(readers) as events:
        found = list(events)
    a, b, c = ([event for event in found if event.source == name] for name in "abc")
    assert [type(event) for event in a] == [Found, Skipped, Found, Found, Failed]
    assert a[1].skip == Skip(500_000, "damaged") and "it broke off" in a[-1].reason
    assert [type(event) for event in b] == [Found] * 4 + [Ended] and c == [Ended("c")]


def test_a_camera_has_no_parts(here):
    with pytest.raises(UsageError, match="camera"), detect_on_ray(here, RayOptions())([(MadeUp("a", kind="live"), -1)]):
        pass


def test_what_turns_out_to_be_a_camera_does_not_stop_the_others(here, monkeypatch):
    def no_parts(frames_per_chunk, after):
        raise ImageError("a is a camera.")

    camera = Parts("a", 3)
    monkeypatch.setattr(camera, "chunks", no_parts)
    with detect_on_ray(here, RayOptions())([(camera, -1), (Parts("b", 2), -1)]) as events:
        first, *rest = events
    assert first == Failed("a", "a is a camera.") and [type(event) for event in rest] == [Found, Found, Ended]


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"backend": "foo"}, UsageError, "^Backend 'foo': there is no backend of that name"),
        ({"bundle": Path("/nowhere")}, StreamError, "^The Ray job stopped: There is no bundle at /nowhere"),
    ],
)
def test_what_a_worker_cannot_do_is_said_in_its_own_words(here, options, kind, said):
    readers = [(Parts("a", 9), -1)]
    with pytest.raises(kind, match=said), detect_on_ray(replace(here, **options), RayOptions())(readers) as events:
        list(events)


def test_a_worker_that_fails_later_says_why(here, monkeypatch):
    def broken(readers):
        raise StreamError("no memory.")

    monkeypatch.setattr(ray_job, "detect_with", lambda *arguments, **options: broken)
    detect, readers = detect_on_ray(here, RayOptions()), [(Parts("a", 9), -1)]
    with pytest.raises(StreamError, match=r"^The Ray job stopped: no memory\.$"), detect(readers) as events:
        list(events)


def test_more_threads_than_any_node_has_are_refused():
    nodes = [{"Alive": True, "Resources": {"CPU": cpus}} for cpus in (2.0, 4.0)] + [{"Alive": False, "Resources": {}}]
    ray_job._check_threads(4, nodes)
    with pytest.raises(UsageError, match=r"An engine of 5 threads .* has 4; give fewer --threads"):
        ray_job._check_threads(5, nodes)


@pytest.fixture
def ray(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000)
    yield ray
    ray.shutdown()


def kill_a_worker():
    """The process of one actor of the pool."""
    psutil = pytest.importorskip("psutil")
    processes = psutil.Process().children(recursive=True)
    worker = next(process for process in processes if " ".join(process.cmdline()).startswith("ray::MapWorker"))
    os.kill(worker.pid, signal.SIGKILL)
    return worker.pid


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_worker_is_killed_and_every_frame_is_indexed_once(bundle, engine, video, tmp_path, ray):
    def index(gallery, detect, on_change=None):
        [report] = Indexer(gallery, detect, CommitEvery(people=20), on_change).run([reader(video)])
        return report

    def rows(gallery):
        keys = ("frame", "person", "visit", "embedding")
        return sorted(tuple(row[key] for key in keys) for row in gallery.store.people.to_arrow().to_pylist())

    killed = []

    def interrupt(report):
        if report.new == STOP:
            raise KeyboardInterrupt

    def kill(report):
        if report.new == 1 and not killed:
            killed.append(kill_a_worker())

    with (
        Gallery.create(tmp_path / "whole", "0" * 64, toy.DIM, "toy.psarm") as whole,
        Gallery.create(tmp_path / "parts", "0" * 64, toy.DIM, "toy.psarm") as parts,
    ):
        index(whole, detect_with(engine))
        with pytest.raises(KeyboardInterrupt):
            index(parts, detect_with(engine), interrupt)
        job = detect_on_ray(EngineOptions(bundle, "onnxruntime"), RayOptions(workers=2, frames_per_chunk=4))
        report = index(parts, job, kill)
        assert killed and (report.indexed, report.new, report.to_do) == (FRAMES, FRAMES - STOP, 0)
        assert rows(parts) == rows(whole)
