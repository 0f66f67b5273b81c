"""`psarm index` as a user meets it: videos of toy scenes, the toy bundle."""

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime

import cv2
import pytest
import toy_bundle as toy

from psarm.cli import run
from psarm.errors import StreamError
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.lock import LOCK_FILE
from psarm.runtime.gallery.writer import GalleryWriter
from psarm.runtime.indexing.indexer import Indexer
from psarm.runtime.indexing.live import LiveReader

RED = (255, 0, 0)
ENGINE = ("--backend", "onnxruntime", "--threads", 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


def make_video(path, frames=20, cells=(0,)):
    """Two seconds at 10 frames a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 96))
    for _ in range(frames):
        writer.write(toy.draw_scene(dict.fromkeys(cells, RED)))
    writer.release()
    return path


@pytest.fixture
def videos(tmp_path):
    return [make_video(tmp_path / "door.avi"), make_video(tmp_path / "hall.avi", cells=(1, 6))]


def psarm(capfd, *arguments):
    """Exit code, stdout, stderr."""
    code = run([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def index(capfd, bundle, *arguments):
    return psarm(capfd, "index", bundle, *arguments, *ENGINE)


def cells(out):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if ".avi" in line]


def test_two_cameras_and_a_table(bundle, videos, tmp_path, capfd):
    where = tmp_path / "gallery"
    options = ("--gallery", where, "--camera", "door", "--camera", "hall", "--start", "2026-03-01T14:30Z")
    code, out, err = index(capfd, bundle, *videos, *options)
    assert code == 0 and out.count(" found ") == 2  # people and visits, also those erased since
    assert [row[1:8] for row in cells(out)] == [
        ["door", "4", "4", "–", "0", "4", "1"],
        ["hall", "4", "4", "–", "0", "8", "2"],
    ]
    assert err == f"Made the gallery {where}.\nRunning on ONNX Runtime fp32 on CPU, 1 thread.\n"
    with Gallery.open(where) as gallery:
        info = gallery.info()
        assert (info.people, info.visits, info.cameras) == (12, 3, ("door", "hall"))
        assert f"{info.start:%Y-%m-%d %H:%M:%S}" == "2026-03-01 14:30:00"


def test_again_there_is_nothing_to_do(bundle, videos, tmp_path, capfd):
    arguments = (videos[0], "--gallery", tmp_path / "gallery", "--camera", "door", "--every", 1, "--json")
    code, out, _ = index(capfd, bundle, *arguments)
    [source] = json.loads(out)["sources"]
    assert code == 0 and (source["due"], source["indexed"], source["new"], source["to_do"]) == (20, 20, 20, 0)
    code, out, err = index(capfd, bundle, *arguments)
    [source] = json.loads(out)["sources"]
    assert code == 0 and (source["indexed"], source["new"], source["finished"]) == (20, 0, True)
    assert err == "Nothing was left to do: everything is indexed.\n"  # and no engine was opened


def test_one_that_is_broken_does_not_stop_the_other(bundle, videos, tmp_path, capfd):
    videos[0].write_bytes(b"no video")
    code, out, err = index(capfd, bundle, *videos, "--gallery", tmp_path / "gallery", "--camera", "c")
    assert code == 1
    assert [row[3] for row in cells(out)] == ["4"]  # of the other nothing is known
    last = "Error: 1 of 2 sources failed (named above); the same command goes on with them."
    assert err.splitlines()[-1] == last and "Failed: " in err and "door.avi" in err


def test_the_only_one_that_is_broken_is_told_once(bundle, videos, tmp_path, capfd):
    videos[0].write_bytes(b"no video")
    code, _, err = index(capfd, bundle, videos[0], "--gallery", tmp_path / "gallery", "--camera", "c")
    assert code == 1 and err.count("door.avi") == 1 and err.splitlines()[-1].startswith("Error: ")


def test_an_interrupted_run_goes_on(bundle, videos, tmp_path, capfd, monkeypatch):
    arguments = (videos[0], "--gallery", tmp_path / "gallery", "--camera", "door", "--every", 1)
    commits = []
    real = GalleryWriter.commit

    def commit(self, batches):
        real(self, batches)
        commits.append(batches)
        if len(commits) == 1:
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
            time.sleep(0.05)

    with monkeypatch.context() as patch:
        patch.setattr(GalleryWriter, "commit", commit)
        patch.setattr(Indexer, "_due", lambda self: True)
        code, out, err = index(capfd, bundle, *arguments)
    assert code == 130 and "the same command goes on after it." in err.splitlines()[-1]
    assert int(cells(out)[0][3]) < 20
    code, out, _ = index(capfd, bundle, *arguments)
    assert code == 0 and cells(out)[0][2:6] == ["20", "20", "–", "0"]
    with Gallery.open(tmp_path / "gallery") as gallery:
        assert (gallery.info().people, gallery.info().visits) == (20, 1)


def test_another_embedding_space_is_refused(bundle, videos, tmp_path, capfd):
    Gallery.create(tmp_path / "gallery", "1" * 64, toy.DIM, "other.psarm").close()
    code, _, err = index(capfd, bundle, videos[0], "--gallery", tmp_path / "gallery", "--camera", "c")
    assert code == 1 and "cannot be compared" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "what"), [("--no-thumbnails", "thumbnails"), ("--visits-only", "the people of every frame")]
)
def test_what_a_gallery_keeps_is_settled(bundle, videos, tmp_path, capfd, option, what):
    Gallery.create(tmp_path / "gallery", "0" * 64, toy.DIM, "toy.psarm").close()
    code, _, err = index(capfd, bundle, videos[0], "--gallery", tmp_path / "gallery", "--camera", "c", option)
    assert code == 2 and f"keeps {what}" in err


def test_a_gallery_of_visits_without_pictures(bundle, videos, tmp_path, capfd):
    options = ("--gallery", tmp_path / "gallery", "--camera", "c", "--no-thumbnails", "--visits-only", "--keyframes")
    assert index(capfd, bundle, videos[0], *options)[0] == 0
    with Gallery.open(tmp_path / "gallery") as gallery:
        assert not gallery.thumbnails and not gallery.facts.people
        assert gallery.info().visits == 1 and gallery.store.visits.to_arrow()["thumbnail"].null_count == 1


def test_who_was_seen_longer_ago_than_is_kept_is_purged(bundle, videos, tmp_path, capfd):
    options = ("--gallery", tmp_path / "gallery", "--keep", "30d", "--start", "2026-03-01T14:30Z", "--start")
    code, out, err = index(capfd, bundle, *videos, *options, datetime.now(UTC).isoformat(), "--json")
    [said] = json.loads(out)["purges"]
    assert code == 0 and said.startswith("Purged 1 visit and 4 people in frames, seen before ") and said in err
    with Gallery.open(tmp_path / "gallery") as gallery:
        assert (gallery.info().people, gallery.info().visits) == (8, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--keep", "30m"), "at least 1h"),
        (("--every", 2, "--fps", 3), "give one of the three"),
        (("--workers", 2), "--ray"),
        (("--start", "yesterday"), "2026-03-01T14:30"),
        (("--backend", "foo"), "no backend of that name"),
        (("--precision", "int8"), "runs "),
        (("--precision", "int8", "--backend", "auto"), "holds no int8 graphs"),
        (("--backend", "foo", "--ray", "local"), "no backend of that name"),
    ],
)
def test_bad_options_make_no_gallery(bundle, videos, tmp_path, capfd, arguments, said):
    arguments = ("--gallery", tmp_path / "gallery", "--camera", "c", "--backend", "onnxruntime", *arguments)
    code, _, err = psarm(capfd, "index", bundle, videos[0], *arguments)
    assert code == 2 and said in err and not (tmp_path / "gallery").exists()


def test_a_camera_is_refused_by_a_cluster_before_all(bundle, tmp_path, capfd):
    pytest.importorskip("ray")
    code, _, err = index(capfd, bundle, "rtsp://127.0.0.1:1/door", "--gallery", tmp_path / "gallery", "--ray", "local")
    assert code == 2 and "index it without --ray" in err and not (tmp_path / "gallery").exists()


def test_ray_is_started_only_where_something_is_left_to_do(bundle, videos, tmp_path, capfd, monkeypatch):
    pytest.importorskip("ray")

    def unreachable(address, threads=1):
        raise StreamError(f"The Ray cluster {address} cannot be reached.")

    monkeypatch.setattr("psarm.runtime.indexing.ray_job.connected", unreachable)
    arguments = (videos[0], "--gallery", tmp_path / "gallery", "--camera", "door")
    code, _, err = index(capfd, bundle, *arguments, "--ray", "local")
    assert code == 1 and err == "Error: The Ray cluster local cannot be reached.\n"
    assert not (tmp_path / "gallery").exists()
    assert index(capfd, bundle, *arguments)[0] == 0
    code, out, err = index(capfd, bundle, *arguments, "--ray", "local")
    assert code == 0 and cells(out)[0][2:4] == ["4", "4"]
    assert err == "Nothing was left to do: everything is indexed.\n"
    assert index(capfd, bundle, videos[1], *arguments[1:], "--ray", "local")[0] == 1


def test_a_folder_that_is_no_gallery_is_left_alone(bundle, videos, tmp_path, capfd):
    code, _, err = index(capfd, bundle, videos[0], "--gallery", tmp_path, "--camera", "c")
    assert code == 1 and len(err.splitlines()) == 1 and sorted(tmp_path.iterdir()) == sorted(videos)


def test_the_password_of_a_camera_is_in_no_file(bundle, tmp_path, capfd, monkeypatch):
    where, address = tmp_path / "gallery", "rtsp://user:s3cret@127.0.0.1:1/door?key=s3cret"
    monkeypatch.setattr("sys.argv", ["psarm", "index", "bundle", address])
    held = []
    plan = LiveReader.plan
    monkeypatch.setattr(LiveReader, "plan", lambda self: held.append((where / LOCK_FILE).read_text()) or plan(self))
    code, out, err = index(capfd, bundle, address, "--gallery", where, "--give-up-after", 0)
    assert code == 1 and "s3cret" not in out + err
    assert held == [f"{os.getpid()} psarm\n"]
    files = [path for path in where.rglob("*") if path.is_file()]
    assert where / LOCK_FILE in files and not any(b"s3cret" in path.read_bytes() for path in files)
    assert (where / LOCK_FILE).read_bytes() == b""
