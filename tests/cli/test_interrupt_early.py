"""Ctrl-C, the real signal, while a command's modules are imported: one clean sentence, no traceback."""

import os
import signal
import subprocess
import sys

import pytest
import toy_bundle as toy

ENTRIES = {
    "python -m psarm": ["-m", "psarm"],
    "psarm": ["-c", "import sys; from psarm.__main__ import main; sys.exit(main())"],  # what installers write
}
# Words of what `python -v` says of an import that has begun or is done, in the order of the imports.
MOMENTS = ["psarm/cli/__init__", "import 'click.core'", "import 'psarm.errors'", "import 'numpy'"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_ctrl_c_during_imports(bundle, tmp_path, entry, moment):
    pictures = tmp_path / "query.png"
    os.mkfifo(pictures)  # nobody writes: the command never ends by itself
    words = [*ENTRIES[entry], "search", str(bundle), "--query", str(pictures), str(pictures)]
    # The smallest pipe for its messages, which we read no further: it gets no more than some modules ahead of us.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "pipesize": 4096}
    with subprocess.Popen([sys.executable, "-v", *words], bufsize=0, **pipes) as process:
        while moment.encode() not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        printed, messages = process.communicate()
    said = [line for line in messages.decode().splitlines() if line and not line.startswith(("#", "import "))]
    assert (process.returncode, said, printed) == (130, ["Interrupted."], b"")


def test_nothing_is_imported_before_ctrl_c_has_an_answer():
    program = "import sys; before = set(sys.modules); import psarm.__main__; print(*sorted(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) <= {"psarm", "psarm.__main__", "__future__"}
