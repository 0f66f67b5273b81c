"""Facts about this machine and the packages in it, for `psarm doctor` and for benchmark reports."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

# What a report of psarm shows: the name people use → the distributions that can provide it.
PACKAGES = {
    "psarm": ("psarm",),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "opencv": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
    ),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "accelerate": ("accelerate",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
}


@dataclass(frozen=True)
class Machine:
    """What speed depends on."""

    system: str
    """Operating system, release and architecture."""
    cpu: str
    """The processor's model name."""
    cores: int
    """Physical cores; the logical ones where the system does not tell."""
    threads: int
    """Logical cores this process may use."""
    memory_bytes: int
    gpus: tuple[str, ...]
    """Name, driver version and memory of every NVIDIA GPU."""
    gpu_detail: str
    """Why `gpus` is empty; empty itself when it is not."""


def describe_machine() -> Machine:
    """Read the facts anew; takes some milliseconds, more where `nvidia-smi` has to be run."""
    gpus, detail = _nvidia_gpus()
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu_model(),
        cores=_physical_cores(),
        threads=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=gpus,
        gpu_detail=detail,
    )


def usable_cores() -> int:
    """Logical cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """CPU threads where none are asked for: OMP_NUM_THREADS, as torch has it, or all usable cores."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else usable_cores()


def cpu_identity() -> str:
    """What tells a CPU from one with other instructions: the model and, where the system lists them, its flags."""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return f"{platform.machine()} {_cpu_model()} {flags.group(1).strip() if flags else ''}"


def package_versions() -> dict[str, str | None]:
    """Python's version and that of every package of `PACKAGES`, None when it is not installed.

    A package that several distributions provide says which it is; more than one installed is a fault and all are named.
    """
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name, distributions in PACKAGES.items():
        found = {distribution: version for distribution in distributions if (version := _version(distribution))}
        if len(distributions) == 1:
            versions[name] = found.get(distributions[0])
        else:
            versions[name] = ", ".join(f"{version} ({dist})" for dist, version in found.items()) or None
    return versions


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = _cpuinfo()
    if found := re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE):
        return found.group(1).strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def _physical_cores() -> int:
    # One block a logical core; those of one physical core share both numbers. ARM lists neither.
    found = set(re.findall(r"^physical id\s*:\s*(\d+)$.*?^core id\s*:\s*(\d+)$", _cpuinfo(), re.MULTILINE | re.DOTALL))
    return len(found) or os.cpu_count() or 1


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _nvidia_gpus() -> tuple[tuple[str, ...], str]:
    if shutil.which("nvidia-smi") is None:
        return (), "nvidia-smi is not installed"
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi did not run: {error}"
    if result.returncode != 0:
        return (), f"nvidia-smi failed: {' '.join((result.stderr or result.stdout).split())}"
    rows = [[part.strip() for part in line.split(",")] for line in result.stdout.splitlines() if line.strip()]
    gpus = tuple(f"{name}, driver {driver}, {memory}" for name, driver, memory in rows)
    return gpus, "" if gpus else "nvidia-smi lists no GPU"
