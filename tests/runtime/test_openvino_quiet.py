"""OpenVINO reports its use to its makers when it is imported: not where psarm imports it."""

import subprocess
import sys


def test_nothing_is_reported():
    code = """
import sys
from psarm.runtime.backends.openvino import OpenVINOBackend
works, why = OpenVINOBackend.probe()
assert works, why
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
