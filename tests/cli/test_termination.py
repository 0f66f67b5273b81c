import os
import signal
import threading
import time

import pytest

from psarm import cli
from psarm.cli.termination import terminated_as_interrupted


def test_it_interrupts():
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        signal.raise_signal(signal.SIGTERM)


def test_one_of_several_processes_is_left_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGTERM)
    with terminated_as_interrupted():
        assert signal.getsignal(signal.SIGTERM) is before


def test_without_one_all_is_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with terminated_as_interrupted():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_forked_process_ends_as_ever():
    reader, writer = os.pipe()
    with terminated_as_interrupted():
        child = os.fork()
        if child == 0:
            os.write(writer, b"1")
            for _ in range(1000):  # not pause(): the signal may come just before
                time.sleep(0.01)
            os._exit(1)
        os.read(reader, 1)  # Python forgets signals that come while it forks
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_every_command_ends_by_it_as_by_ctrl_c(monkeypatch, capsys):
    monkeypatch.setattr(cli.cli, "main", lambda **_: signal.raise_signal(signal.SIGTERM))
    assert cli.run(["doctor"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_outside_the_main_thread_commands_run_without_it(monkeypatch):
    codes = []
    monkeypatch.setattr(cli.cli, "main", lambda **_: 7)
    thread = threading.Thread(target=lambda: codes.append(cli.run([])))
    thread.start()
    thread.join()
    assert codes == [7]
