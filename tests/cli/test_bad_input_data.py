"""Annotations of the wrong shape, given to the commands that read a data set."""

from pathlib import Path

import numpy as np
import pytest
from failing import failing
from scipy.io import savemat
from tiny_prw import write_tiny_prw
from toy_bundle import make_toy_bundle

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.fixture
def root(tmp_path):
    return write_tiny_prw(tmp_path / "prw")


@pytest.fixture(params=["train", "bench"])
def command(request, root, tmp_path):
    if request.param == "train":
        return ["train", "--config", CONFIG, "--data-root", root, "--output", tmp_path / "out"]
    bundle = make_toy_bundle(tmp_path / "toy.psarm")
    return ["bench", bundle, "--data-root", root, "--json", tmp_path / "out"]


@pytest.mark.parametrize(
    ("matrix", "shape"),
    [(np.ones((3, 4)), r"float64 of shape [3, 4]"), (np.array([["a person"]], object), r"of shape [1, 1]")],
    ids=["four columns", "text"],
)
def test_an_annotation(command, root, tmp_path, capfd, matrix, shape):
    path = root / "annotations" / "c1s1_000000.jpg.mat"
    savemat(path, {"box_new": matrix})
    sentence = failing(capfd, *command)
    assert sentence.startswith(f"Error: {path}: box_new should be numbers of shape [n,5] (identity, x, y, w, h)")
    assert shape in sentence and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"img_index_train": np.ones((4, 2))}, "img_index_train should be a cell array of frame names, but entry 0"),
        ({"frames": np.ones(4)}, "has no variable img_index_train (found: frames); it should list frame names."),
    ],
    ids=["numbers", "another variable"],
)
def test_a_list_of_frames(command, root, tmp_path, capfd, content, says):
    savemat(root / "frame_train.mat", content)
    sentence = failing(capfd, *command)
    assert str(root / "frame_train.mat") in sentence and says in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("identity", [-2, 10**21])
def test_the_identity_of_a_query(command, root, tmp_path, capfd, identity):
    path = root / "query_info.txt"
    lines = path.read_text().splitlines()
    lines[1] = " ".join([str(identity), *lines[1].split()[1:]])
    path.write_text("\n".join(lines))
    sentence = failing(capfd, *command)
    assert sentence.startswith(f"Error: {path} line 2: identity {identity} is out of range; expected a whole number")
    assert not (tmp_path / "out").exists()
