"""What each of several processes does that evaluate; the test does the same alone, and compares."""

import dataclasses

import numpy as np
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


def shared_metrics(accelerator, prw):
    """`metrics` of one of several processes."""
    return metrics(prw, accelerator.process_index, accelerator.num_processes)
