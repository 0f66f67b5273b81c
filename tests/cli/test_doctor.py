"""What `psarm doctor` prints and exits with, on machines with and without working backends."""

import json

import pytest

from psarm.cli import run
from psarm.machine import PACKAGES, package_versions
from psarm.runtime import backends
from psarm.runtime.backends import BackendStatus


@pytest.fixture
def broken_backends(monkeypatch):
    statuses = [
        BackendStatus("onnxruntime", False, "libfoo.so.1 [not] found"),
        BackendStatus("openvino", False, "absent"),
    ]
    monkeypatch.setattr(backends, "probe_backends", lambda: statuses)


def test_tables_show_versions_machine_and_backends(capsys):
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    for part in ("Versions", "python", "psarm", "torch", "Machine", "processor", "GiB", "GPU", "Backends", "openvino"):
        assert part in shown


def test_json_is_one_object(capsys):
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"] == package_versions()
    assert report["machine"]["threads"] >= 1
    loads = {backend["name"]: backend["loads"] for backend in report["backends"]}
    assert loads["onnxruntime"] is True
    assert all(backend["detail"] for backend in report["backends"])


def test_no_backend_loads(broken_backends, capsys):
    assert run(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "libfoo.so.1 [not] found" in shown.out  # not taken for rich markup
    assert shown.err == "Error: No backend loads on this machine; install one with: pip install onnxruntime.\n"


def test_no_backend_loads_json(broken_backends, capsys):
    assert run(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [backend["loads"] for backend in report["backends"]] == [False, False]


def test_a_missing_package_is_said_so(monkeypatch, capsys):
    monkeypatch.setitem(PACKAGES, "torch", ("no-such-distribution",))
    run(["doctor"])
    shown = capsys.readouterr().out.partition("Machine")[0]
    [line] = [line for line in shown.splitlines() if line.startswith("│ torch ")]
    assert "not installed" in line
