"""What one process of several does that evaluate; the test does the same alone, and compares."""

import dataclasses
import json
import os

import numpy as np
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from oracle_model import Oracle

from psarm.data.prw import read_prw
from psarm.training.evaluate import evaluate

CBGM = ("as it is with CBGM", "one query with CBGM")


def cases(prw):
    """Name → a data set."""
    dataset = read_prw(prw)
    first, second = dataset.queries
    of_first = [frame for frame in dataset.gallery if first.identity in frame.identities and frame.name != first.name]
    lists = [np.array([0, 1, 3]), np.array([4, 2])]
    return {
        "as it is": dataset,
        "as it is with CBGM": dataset,
        "galleries": dataclasses.replace(dataset, galleries={"some": lists}, default_gallery="some"),
        "queries of one image": dataclasses.replace(dataset, queries=[second, first, second]),
        "one query": dataclasses.replace(dataset, queries=[first]),
        "one query with CBGM": dataclasses.replace(dataset, queries=[first]),
        "one frame": dataclasses.replace(dataset, gallery=of_first[:1], queries=[first]),
    }


def metrics(prw, process=0, processes=1):
    """Name of a case → what `evaluate` returns."""
    model = Oracle(read_prw(prw), noise=0.5)
    return {
        name: evaluate(model, dataset, name in CBGM, workers=0, process=process, processes=processes)
        for name, dataset in cases(prw).items()
    }


def leave_metrics(rank, world, port, prw, folder):
    """What each process does."""
    AcceleratorState._reset_state(reset_partial_state=True)  # that of the process this one was forked from
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    accelerator = Accelerator(cpu=True)
    found = metrics(prw, accelerator.process_index, accelerator.num_processes)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    accelerator.end_training()
