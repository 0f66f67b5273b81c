"""Python programs in processes of their own, forked from one that has torch imported already.

Importing torch takes a new interpreter longer than a tiny training. These are processes as any: they have their own
environment, standard streams and exit code, and can be killed.
"""

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

IMPORTED = ("psarm.cli.train", "psarm.training.trainer", "psarm.training.final", "psarm.benchmarks.table")
"""What the process imports that the others are forked from."""

LONGEST = 300
"""Seconds that a process may take."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*IMPORTED, "torch.distributed.run", "torch.utils.tensorboard"])


def run(
    words: list[str], environment: Mapping[str, str] | None = None, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    """What `python WORDS` does, with its exit code and what it printed; `words` are a file or `-m`, a module, and more.

    Several processes are started and watched by torchrun's agent, whose exit code is 1 when one of them fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _context.Process(
            target=_main, args=(words, {**os.environ, **(environment or {})}, streams, processes)
        )
        process.start()
        process.join(LONGEST)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, LONGEST)
        return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text("utf-8") for path in streams))


def _main(words: list[str], variables: dict[str, str], streams: list[Path], processes: int) -> None:
    for number, path in zip((1, 2), streams, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(variables)
    gc.freeze()  # else a collection, as there is one after a training, copies and visits all that torch has made
    if processes == 1:
        _execute(words)
    else:
        _torchrun(words, processes)


def _execute(words: list[str]) -> None:
    import torch

    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # what it is in a new interpreter
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code:  # torchrun's agent takes any SystemExit for a failure
            raise


def _torchrun(words: list[str], processes: int) -> None:
    """As `torchrun --standalone --nproc_per_node=PROCESSES`, which does this too, but with programs to be started."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    try:
        elastic_launch(config, _execute)(words)
    except ChildFailedError as error:
        sys.exit(f"torchrun: {error}")
