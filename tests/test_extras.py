import pytest

from psarm.errors import MissingExtraError
from psarm.extras import require


def test_installed_modules_pass():
    require("json", "numpy", feature="psarm train", extra="train")


def test_missing_modules_name_feature_extra_and_command():
    with pytest.raises(MissingExtraError) as caught:
        require("json", "no_such_module", "nor_this", feature="psarm train", extra="train")
    assert str(caught.value) == (
        "psarm train needs the 'train' extra (no_such_module, nor_this are not installed); "
        "install it with: pip install 'psarm[train]'."
    )
    assert caught.value.exit_code == 2
