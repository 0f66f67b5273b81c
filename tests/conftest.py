"""What every test can count on: torch on one thread, and psarm installed as a user without torch has it."""

import fcntl
import gc
import importlib.util
import multiprocessing.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A shell starts background jobs with Ctrl-C ignored, and so would be every command the tests start and then interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

if importlib.util.find_spec("torch"):
    import torch

    # pytest-xdist runs one process a core; more threads in each only get in each other's way.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that at the end no process is left alone with them."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """No garbage collection looks again at what all the imports made; every training ends with one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What libraries and ended processes leave in the folder for temporary files goes when the run ends.

    Not in pytest's folder: there, the names of sockets would be too long.
    """
    tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(prefix="psarm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # as the folder that it stands for, it lets other users through
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", folder)
            patch.setattr(tempfile, "tempdir", folder)
            yield
            multiprocessing.util._run_finalizers()  # at exit its folder is gone, or pytest-xdist ends without them


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Annotations are cached in a folder of this run's, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout and the wheel built from that sdist."""
    with _made_once(tmp_path_factory, "distributions") as (folder, made):
        if not made:
            # From a copy: building in the checkout would leave build/ there, and pick up old files from it.
            source = folder / "source"
            for name in ("psarm", "export", "runtime", "benchmarks", "configs"):
                shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, source / name)
            _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source)
    return folder


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    """The built wheel."""
    [path] = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def torch_free_python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """Python of an environment with the wheel and its base dependencies only; `psarm` lies beside it.

    Run it with `cwd` outside the checkout, or the checkout's psarm is imported in place of the wheel's.
    """
    uv = shutil.which(os.environ.get("UV", "uv"))
    if uv is None:
        if os.environ.get("CI"):
            pytest.fail("uv is needed to make an environment without torch; run the tests with `make test`")
        pytest.skip("uv is needed to make an environment without torch; run the tests with `make test`")
    with _made_once(tmp_path_factory, "torch_free") as (folder, made):
        python = folder / "venv" / "bin" / "python"
        if not made:
            _run(uv, "venv", "--quiet", "--python", sys.executable, folder / "venv")
            _run(uv, "pip", "install", "--quiet", "--python", python, "--constraints", ROOT / "constraints.txt", wheel)
    return python


@contextmanager
def _made_once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder shared by all pytest-xdist workers of this run, locked, and whether one of them has filled it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / ".done"
        yield folder, done.exists()
        done.touch()


def _run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))} exited with {result.returncode}:\n{result.stdout}{result.stderr}")
