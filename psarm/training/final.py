"""The evaluation on the test split: at the end of a training, or of what one left (`psarm train --eval-only`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from psarm.config import Config
from psarm.data.types import PersonSearchDataset
from psarm.errors import UsageError
from psarm.evaluation.protocol import SearchProtocol
from psarm.evaluation.scoring import Metrics
from psarm.files import write_json
from psarm.model.checkpoint import load_model
from psarm.training.evaluate import evaluate
from psarm.training.faults import evaluation_out_of_memory, explained
from psarm.training.saving import BEST_FILE, METRICS_FILE, MODEL_FILE, chosen_checkpoint, remove_unfinished
from psarm.training.setup import make_accelerator, read_dataset


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
        KeyboardInterrupt: with a sentence that nothing but the evaluation is missing.
    """
    output = Path(config.train.output)
    checkpoint = chosen_checkpoint(output)
    if not checkpoint.exists():
        raise UsageError(
            f"There is no checkpoint to evaluate in {output} (neither {BEST_FILE} nor {MODEL_FILE}); "
            "train one first, or give the --output of a training."
        )
    accelerator = make_accelerator("no")
    dataset = read_dataset(config.data)
    SearchProtocol.from_dataset(dataset)
    metrics = evaluate_checkpoint(agreed_checkpoint(output), dataset, config, accelerator)
    accelerator.end_training()
    return Evaluation(checkpoint, metrics)


def agreed_checkpoint(output: Path) -> Path:
    """`chosen_checkpoint` as the first process sees the folder, in which a training may be going on."""
    [name] = broadcast_object_list([str(chosen_checkpoint(output))])
    return Path(name)


def evaluate_checkpoint(
    checkpoint: Path, dataset: PersonSearchDataset, config: Config, accelerator: Accelerator
) -> Metrics | None:
    """Metrics of the model in the file `checkpoint` on the test split; written beside it as `metrics.json`.

    All processes read that file, share the images, and the first one scores; the others get None.
    """
    process, processes = accelerator.process_index, accelerator.num_processes
    if accelerator.is_main_process:
        remove_unfinished(checkpoint.parent, [METRICS_FILE])  # the others' may be of a training that goes on
    try:
        with explained(evaluation_out_of_memory(config.model), process, processes):
            model = load_model(checkpoint, str(accelerator.device))
            metrics = evaluate(model, dataset, workers=config.data.workers, process=process, processes=processes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{checkpoint} is written; only its evaluation was left.") from None
    if metrics is not None:
        write_json(checkpoint.parent / METRICS_FILE, metrics)
    return metrics
