"""Machine facts against fake tools and files."""

import os
from pathlib import Path

import pytest

from psarm import machine
from psarm.machine import PACKAGES, describe_machine, package_versions

TWO_SOCKETS = "\n\n".join(
    f"processor : {i}\nmodel name\t: Fast CPU (TM)\nphysical id\t: {socket}\ncore id\t\t: {core}"
    for i, (socket, core) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)] * 2)
)


@pytest.fixture
def nvidia_smi(monkeypatch, tmp_path):
    """Put a fake `nvidia-smi` with the given shell body on PATH."""

    def install(body: str) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


def test_this_machine_has_plausible_facts():
    facts = describe_machine()
    assert facts.cpu and facts.system
    assert facts.cores >= 1 and facts.threads >= 1
    assert facts.memory_bytes > 2**28
    assert bool(facts.gpus) != bool(facts.gpu_detail)


@pytest.mark.parametrize(("info", "cores"), [(TWO_SOCKETS, 4), ("processor : 0\nprocessor : 1", os.cpu_count())])
def test_cores_are_counted_once_for_all_their_threads(monkeypatch, info, cores):
    monkeypatch.setattr(machine, "_cpuinfo", lambda: info)
    assert describe_machine().cores == cores


def test_usable_cores_are_those_the_process_is_bound_to(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 5}, raising=False)
    assert machine.usable_cores() == describe_machine().threads == 3


def test_processor_name(monkeypatch):
    monkeypatch.setattr(machine, "_cpuinfo", lambda: TWO_SOCKETS)
    assert describe_machine().cpu == "Fast CPU (TM)"


def test_gpus_are_listed(nvidia_smi):
    nvidia_smi("echo 'NVIDIA X1, 999.1, 1024 MiB'; echo 'NVIDIA X2, 999.1, 2048 MiB'")
    facts = describe_machine()
    assert facts.gpus == ("NVIDIA X1, driver 999.1, 1024 MiB", "NVIDIA X2, driver 999.1, 2048 MiB")
    assert facts.gpu_detail == ""


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("echo 'no driver' >&2; exit 9", "nvidia-smi failed: no driver"),
        ("exit 0", "nvidia-smi lists no GPU"),
    ],
)
def test_without_a_gpu_the_reason_is_given(nvidia_smi, body, detail):
    nvidia_smi(body)
    assert (describe_machine().gpus, describe_machine().gpu_detail) == ((), detail)


def test_without_nvidia_smi(monkeypatch):
    monkeypatch.setenv("PATH", str(Path("/nowhere")))
    assert describe_machine().gpu_detail == "nvidia-smi is not installed"


def test_versions_name_what_provides_a_package(monkeypatch):
    installed = {"numpy": "2.0", "opencv-python": "4.1", "onnxruntime": "1.2", "onnxruntime-gpu": "1.1"}
    monkeypatch.setattr(machine, "_version", installed.get)
    versions = package_versions()
    assert list(versions) == ["python", *PACKAGES]
    assert versions["numpy"] == "2.0"
    assert versions["opencv"] == "4.1 (opencv-python)"
    assert versions["onnxruntime"] == "1.2 (onnxruntime), 1.1 (onnxruntime-gpu)"
    assert versions["torch"] is None


@pytest.mark.parametrize(("wanted", "threads"), [("3", 3), ("0", None), ("", None), ("many", None)])
def test_default_threads_are_those_of_the_environment(wanted, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert machine.default_threads() == (machine.usable_cores() if threads is None else threads)
