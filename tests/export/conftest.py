"""Bundles of small models, each exported once."""

from types import SimpleNamespace

import pytest
from small_models import VARIANTS, exported_once


@pytest.fixture(scope="session", params=list(VARIANTS))
def exported(request, tmp_path_factory):
    """`variant`, `model` and `bundle` of each small model."""
    model, bundle = exported_once(tmp_path_factory, request.param)
    return SimpleNamespace(variant=request.param, model=model, bundle=bundle)


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory):
    """`model` and `bundle` of the small PS-ARM in the paper's layout."""
    model, bundle = exported_once(tmp_path_factory, "paper")
    return SimpleNamespace(model=model, bundle=bundle)
