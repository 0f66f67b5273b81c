"""`psarm train`: train a model from a preset or a configuration file."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from pathlib import Path
from typing import Any

import click

from psarm.config import Config, load_config
from psarm.errors import PsarmError, UsageError
from psarm.extras import require
from psarm.presets import find_config


@click.command()
@click.option(
    "--config", "config_name", required=True, metavar="PRESET|FILE", help="A preset (psarm models), or a YAML file."
)
@click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key: train.epochs=4.")
@click.option("--data-root", metavar="DIR", help="Folder of the data set (data.root).")
@click.option("--output", metavar="DIR", help="Folder for checkpoints and logs (train.output).")
@click.option("--resume", is_flag=True, help="Go on from the last finished epoch.")
@click.option(
    "--allow-changes", is_flag=True, help="Resume with other settings than the run's, such as more train.epochs."
)
@click.option("--overwrite", is_flag=True, help="Start again in a folder that holds a training.")
@click.option("--eval-only", is_flag=True, help="Only evaluate the checkpoint in the output folder (its model).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    config_name: str,
    overrides: tuple[str, ...],
    data_root: str | None,
    output: str | None,
    resume: bool,
    allow_changes: bool,
    overwrite: bool,
    eval_only: bool,
    as_json: bool,
) -> int | None:
    """Train a model from a preset or a configuration file with the groups model, data and train.

    The output folder gets model.safetensors (for psarm export), last.pt (for --resume), TensorBoard logs, with
    data.validation best.safetensors and, after the evaluation at the end, metrics.json.

    Several processes, one a GPU: torchrun --nproc_per_node GPUS -m psarm train … (train.batch_size is each one's).
    """
    try:
        config = _config(config_name, overrides, data_root, output)
        _check_flags(resume, allow_changes, overwrite, eval_only)
        _say_failed_writes_once()
        summary = _evaluate(config) if eval_only else _train(config, resume, overwrite, allow_changes)
    except (PsarmError, OSError, KeyboardInterrupt) as error:
        if _is_said_elsewhere(error):
            return getattr(error, "exit_code", 1)
        raise
    if _main_process():
        _show(summary, as_json)
    return None


def _config(name: str, overrides: tuple[str, ...], data_root: str | None, output: str | None) -> Config:
    needed = ("accelerate", "safetensors", "tensorboard", "torch", "torchvision", "yaml")
    require(*needed, feature="psarm train", extra="train")
    config = load_config(find_config(name), overrides)
    if data_root is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=data_root))
    if output is not None:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, output=output))
    return config


def _check_flags(resume: bool, allow_changes: bool, overwrite: bool, eval_only: bool) -> None:
    if eval_only and (resume or allow_changes or overwrite):
        raise UsageError("--eval-only trains nothing; give it without --resume, --allow-changes and --overwrite.")
    if allow_changes and not resume:
        raise UsageError("--allow-changes is about a training to go on with; give it with --resume.")


def _is_said_elsewhere(error: BaseException) -> bool:
    """Whether torchrun started several processes here and another one meets, and says, the same."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        return False
    from psarm.training.faults import ProcessFault

    return not isinstance(error, ProcessFault)


def _main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say_failed_writes_once() -> None:
    """TensorBoard's thread hands a failed write to the main thread, which ends with it, and would show it too."""
    show = threading.excepthook

    def show_others(arguments: threading.ExceptHookArgs) -> None:
        if not issubclass(arguments.exc_type, OSError):
            show(arguments)

    threading.excepthook = show_others


def _train(config: Config, resume: bool, overwrite: bool, allow_changes: bool) -> dict[str, Any]:
    from psarm.training.trainer import train

    try:
        result = train(config, resume=resume, overwrite=overwrite, allow_changes=allow_changes)
    except KeyboardInterrupt as stop:
        if str(stop):  # a sentence of its own says that the evaluation is left
            raise KeyboardInterrupt(_how_to_evaluate(stop, resume, overwrite, allow_changes)) from None
        raise KeyboardInterrupt(_how_to_go_on(config, overwrite)) from None
    return {
        "checkpoint": str(result.checkpoint),
        "epochs": result.epochs,
        "seconds": round(result.seconds, 1),
        "losses": result.losses,
        "validation": result.validation,
        "evaluated": None if result.metrics is None else str(result.checkpoint),
        "metrics": result.metrics,
    }


def _evaluate(config: Config) -> dict[str, Any]:
    from psarm.training.final import evaluate_output

    try:
        result = evaluate_output(config)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{stop} Run the same command again to evaluate it.".strip()) from None
    return {"evaluated": str(result.checkpoint), "metrics": result.metrics}


def _show(summary: dict[str, Any], as_json: bool) -> None:
    from psarm.benchmarks.table import print_metrics
    from psarm.console import out

    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    if "losses" in summary:
        _show_training(summary)
    if summary["metrics"] is not None:
        print_metrics(summary["metrics"], out)
        out.print(f"Evaluated: {summary['evaluated']}", soft_wrap=True)
    if "checkpoint" in summary:
        checkpoint = summary["checkpoint"]
        out.print(f"Checkpoint: {checkpoint}", soft_wrap=True)
        out.print(f"Next: psarm export {checkpoint} --out {Path(checkpoint).parent / 'bundle.psarm'}", soft_wrap=True)


def _show_training(summary: dict[str, Any]) -> None:
    from rich.table import Table

    from psarm.console import out

    epochs = summary["epochs"]
    losses = Table("loss", title=f"Trained {epochs} epoch{'s' * (epochs != 1)}", title_justify="left")
    losses.add_column("last epoch", justify="right")
    for name, value in summary["losses"].items():
        losses.add_row(name, f"{value:.4f}")
    out.print(losses)
    if not summary["validation"]:
        return
    from psarm.training.state import best_validation

    best = best_validation(summary["validation"])
    validation = Table("after epoch", title="Validation, % (best: *)", title_justify="left")
    for column in ("mAP", "top-1", "detection AP"):
        validation.add_column(column, justify="right")
    for entry in summary["validation"]:
        figures = (entry["search"]["mAP"], entry["search"]["top1"], entry["detection"]["ap"])
        mark = " *" if entry is best else ""
        validation.add_row(f"{entry['epoch']}{mark}", *(f"{100 * figure:.1f}" for figure in figures))
    out.print(validation)


def _how_to_evaluate(stop: KeyboardInterrupt, resume: bool, overwrite: bool, allow_changes: bool) -> str:
    flags = ["--resume"] * resume + ["--allow-changes"] * allow_changes + ["--overwrite"] * overwrite
    instead = f" in place of {' '.join(flags)}" if flags else ""
    return f"{stop} Run the same command with --eval-only{instead} to make it."


def _how_to_go_on(config: Config, overwrite: bool) -> str:
    from psarm.training.saving import STATE_FILE

    if (Path(config.train.output) / STATE_FILE).exists():
        flag = "--resume in place of --overwrite" if overwrite else "--resume"
        return f"Every finished epoch is in {config.train.output}; run the same command with {flag} to go on."
    return "No epoch was finished, so there is nothing to resume; run the same command to start again."
