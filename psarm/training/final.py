"""The evaluation on the test split: at the end of a training, or of what one left (`psarm train --eval-only`)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from psarm.config import Config
from psarm.data.types import PersonSearchDataset
from psarm.errors import UsageError
from psarm.evaluation.protocol import SearchProtocol
from psarm.evaluation.scoring import Metrics
from psarm.files import write_json
from psarm.model.checkpoint import load_model
from psarm.model.person_search import PersonSearchModel
from psarm.training.evaluate import evaluate
from psarm.training.faults import evaluation_out_of_memory, explained
from psarm.training.setup import make_accelerator, read_dataset
from psarm.training.state import BEST_FILE, METRICS_FILE, MODEL_FILE


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint and how good it is."""

    checkpoint: Path
    metrics: Metrics | None
    """Fractions on the test split; None in all processes but the first."""


def evaluate_output(config: Config) -> Evaluation:
    """Evaluate the best validated checkpoint of `train.output`, or the last, and write `metrics.json` beside it.

    Of `config` only the data set, its workers and the output folder count: the checkpoint holds its own model.

    Raises:
        UsageError: there is no checkpoint.
        DataError: the data set cannot be read, or has nothing to evaluate on.
        CheckpointError: the checkpoint is damaged.
    """
    output = Path(config.train.output)
    found = [output / name for name in (BEST_FILE, MODEL_FILE) if (output / name).exists()]
    if not found:
        raise UsageError(
            f"There is no checkpoint to evaluate in {output} (neither {BEST_FILE} nor {MODEL_FILE}); "
            "train one first, or give the --output of a training."
        )
    accelerator = make_accelerator("no")
    dataset = read_dataset(config.data)
    SearchProtocol.from_dataset(dataset)
    model = load_model(found[0], str(accelerator.device))
    metrics = evaluate_checkpoint(found[0], model, dataset, config, accelerator)
    accelerator.end_training()
    return Evaluation(found[0], metrics)


def evaluate_checkpoint(
    checkpoint: Path, model: PersonSearchModel, dataset: PersonSearchDataset, config: Config, accelerator: Accelerator
) -> Metrics | None:
    """Metrics of `model`, whose weights `checkpoint` holds, on the test split; written beside it as `metrics.json`.

    The processes share the images; the first one scores, and the others get None.
    """
    process, processes = accelerator.process_index, accelerator.num_processes
    try:
        with explained(evaluation_out_of_memory(model.config), process, processes):
            metrics = evaluate(model, dataset, workers=config.data.workers, process=process, processes=processes)
    except KeyboardInterrupt:
        data = ["--dataset", config.data.dataset, "--data-root", config.data.root]
        command = shlex.join(["psarm", "bench", "--checkpoint", str(checkpoint), *data])
        raise KeyboardInterrupt(
            f"{checkpoint} is written; only its evaluation was left ({command} makes it)."
        ) from None
    if metrics is not None:
        write_json(checkpoint.parent / METRICS_FILE, metrics)
    return metrics
