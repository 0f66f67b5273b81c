"""A stream in a process of its own: Ctrl-C, and leaving without closing."""

import signal
import subprocess
import sys

import pytest
import toy_bundle as toy

SCRIPT = """
import sys, threading
import numpy as np
from psarm.runtime import PersonSearch

def camera():
    while True:
        yield np.zeros((96, 160, 3), np.uint8)

engine = PersonSearch(sys.argv[1], "onnxruntime", threads=2)
stream = engine.stream(camera(), batch=2)
if sys.argv[2] == "leave":
    print(next(stream).index)
    sys.exit()
try:
    with stream:
        for result in stream:
            if result.index == 5:
                print("running", flush=True)
except KeyboardInterrupt:
    print([thread.name for thread in threading.enumerate()])
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


def test_ctrl_c_ends_every_thread(bundle):
    command = [sys.executable, "-c", SCRIPT, str(bundle), "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "running\n", process.stderr.read()
        process.send_signal(signal.SIGINT)
        printed, messages = process.communicate(timeout=60)
    assert (process.returncode, printed, messages) == (130, "['MainThread']\n", "")


def test_a_process_that_leaves_without_closing_ends(bundle):
    command = [sys.executable, "-c", SCRIPT, str(bundle), "leave"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")
