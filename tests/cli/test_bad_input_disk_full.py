"""A disk that is full, told by the file that was asked for, with nothing half-written left behind."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import toy_bundle as toy
from failing import failing
from tiny_prw import write_tiny_prw
from toy_prw import write_toy_prw

END = "; nothing half-written was left behind; free space and run again."
FULL = Path("/dev/full")
CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.fixture
def full_disk(monkeypatch):
    """Some file systems tell only on fsync that the disk is full, and without a name."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_toy_prw(tmp_path_factory.mktemp("data") / "prw", gallery=3, queries=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.mark.usefixtures("full_disk", "quick")
def test_export(checkpoint, tmp_path, capfd):
    out = tmp_path / "b.psarm"
    sentence = failing(capfd, "export", checkpoint, "--out", out, "--no-verify")
    assert sentence == f"Error: the disk is full while writing {out / 'manifest.json'}{END}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("option", ["--json", "--save-detections"])
def test_bench(bundle, root, tmp_path, capfd, option):
    out = tmp_path / "out"
    arguments = ["bench", bundle, "--data-root", root, "--frames", 1, "--threads", 1, option, out]
    assert failing(capfd, *arguments, out=None) == f"Error: the disk is full while writing {out}{END}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("full_disk")
def test_search_page(bundle, root, tmp_path, capfd):
    query, page = tmp_path / "query.png", tmp_path / "page.html"
    cv2.imwrite(str(query), toy.draw_scene({0: (255, 0, 0)}))
    sentence = failing(capfd, "search", bundle, "--query", query, root / "frames", "--html", page, out=None)
    assert sentence == f"Error: the disk is full while writing {page}{END}"
    assert list(tmp_path.iterdir()) == [query]


@pytest.mark.usefixtures("full_disk")
def test_contact_sheet(root, tmp_path, capfd):
    sheet = tmp_path / "sheet.jpg"
    sentence = failing(capfd, "data", "check", root, "--contact-sheet", sheet, out=None)
    assert sentence == f"Error: the disk is full while writing {sheet}{END}"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 32 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_of_32_kib(small_disk):
    out = small_disk / "prw"
    settings = ["--frames", "36", "--identities", "4", "--size", "160x96", "--people-per-frame", "2", "--workers", "1"]
    command = [sys.executable, "-m", "psarm", "data", "synth", str(out), *settings]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stdout == ""
    [sentence] = result.stderr.splitlines()
    assert sentence.startswith(f"Error: the disk is full while writing {out}") and sentence.endswith(END)
    assert list(small_disk.iterdir()) == []


def test_training_logs_on_a_real_disk_without_space(small_disk, tmp_path):
    """TensorBoard writes in a thread of its own."""
    data = write_tiny_prw(tmp_path / "prw")
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "fill").write_bytes(bytes(1 << 16))
    arguments = ["--config", str(CONFIG), "--data-root", str(data), "--output", str(small_disk / "run")]
    command = [sys.executable, "-m", "psarm", "train", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stdout == ""
    [_, sentence] = result.stderr.splitlines()  # the first says what is trained
    assert sentence.startswith("Error: the disk is full")


@pytest.mark.usefixtures("quick")
def test_export_to_a_real_disk_of_32_kib(small_disk, checkpoint, capfd):
    out = small_disk / "b.psarm"
    sentence = failing(capfd, "export", checkpoint, "--out", out, "--no-verify")
    assert sentence.startswith(f"Error: the disk is full while writing {out}") and sentence.endswith(END)
    assert list(small_disk.iterdir()) == []


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_standard_output_on_a_full_disk(bundle, root):
    command = [sys.executable, "-m", "psarm", "detect", str(bundle), str(root / "frames"), "--json"]
    with FULL.open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"Error: the disk is full{END}"
