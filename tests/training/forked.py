"""Several processes of Accelerate on a CPU (gloo), forked from the test: a new interpreter would import torch again."""

import json
import multiprocessing
import os
import socket

from accelerate import Accelerator
from accelerate.state import AcceleratorState


def on_a_cpu():
    return Accelerator(cpu=True)


def answers(function, folder, *args, processes=2, make=on_a_cpu):
    """What `function(make(), *args)` returns in each process, as JSON has it; `folder` is for nothing else."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=_answer, args=(make, function, folder, args, rank, processes, port))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=120)
        process.kill()
    assert [process.exitcode for process in started] == [0] * processes
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


def _answer(make, function, folder, args, rank, processes, port):
    AcceleratorState._reset_state(reset_partial_state=True)  # that of the process this one was forked from
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    accelerator = make()
    answer = function(accelerator, *args)
    (folder / f"{rank}.json").write_text(json.dumps(answer))
    accelerator.end_training()
