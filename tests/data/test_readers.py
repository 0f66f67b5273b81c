import pytest
from prw_files import write_prw

from psarm.config import DATASETS
from psarm.data.layouts import LAYOUTS
from psarm.data.readers import READERS, read_dataset
from psarm.errors import UsageError


def test_every_data_set_of_a_configuration_can_be_read_and_checked(tmp_path):
    assert DATASETS == tuple(READERS) == tuple(LAYOUTS)
    assert len(read_dataset("prw", write_prw(tmp_path / "PRW")).train) == 2


def test_other_names_are_refused(tmp_path):
    with pytest.raises(UsageError, match="does not read market yet, only prw"):
        read_dataset("market", tmp_path)
