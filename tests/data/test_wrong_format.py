"""A data set read in the wrong format is recognised for what it is."""

import pytest
from clips import write_visits
from tiny_prw import write_tiny_prw

from psarm.data.readers import read_dataset
from psarm.errors import DataError


def test_the_format_that_fits_is_named(tmp_path):
    prw, visits = write_tiny_prw(tmp_path / "prw"), write_visits(tmp_path / "visits")
    for name, root, holds in (("cuhk-sysu", prw, "prw"), ("visits", prw, "prw"), ("prw", visits, "visits")):
        with pytest.raises(DataError, match=f"in the format {holds}, not {name}; give --dataset {holds}"):
            read_dataset(name, root)


def test_a_broken_data_set_of_the_right_format_is_named_itself(tmp_path):
    root = write_tiny_prw(tmp_path / "prw")
    (root / "frame_train.mat").unlink()
    with pytest.raises(DataError, match=r"not a PRW data set: frame_train\.mat not found"):
        read_dataset("prw", root)
    with pytest.raises(DataError, match="not a PRW data set"):
        read_dataset("prw", tmp_path)
