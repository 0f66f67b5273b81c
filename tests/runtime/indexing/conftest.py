"""The toy engine and an empty gallery for it."""

import pytest
import toy_bundle as toy

from psarm.runtime import PersonSearch
from psarm.runtime.gallery.gallery import Gallery


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.fixture(scope="module")
def engine(bundle):
    with PersonSearch(bundle, "onnxruntime", threads=1) as engine:
        yield engine


@pytest.fixture
def gallery(tmp_path):
    with Gallery.create(tmp_path / "gallery", "0" * 64, toy.DIM, "toy.psarm") as gallery:
        yield gallery
