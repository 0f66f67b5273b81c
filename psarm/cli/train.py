"""`psarm train`: train a model from a preset or a configuration file."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.config import Config, load_config
from psarm.extras import require
from psarm.presets import find_config

if TYPE_CHECKING:
    from psarm.training.trainer import TrainingResult


@click.command()
@click.option(
    "--config", "config_name", required=True, metavar="PRESET|FILE", help="A preset (psarm models), or a YAML file."
)
@click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key: train.epochs=4.")
@click.option("--data-root", metavar="DIR", help="Folder of the data set (data.root).")
@click.option("--output", metavar="DIR", help="Folder for checkpoints and logs (train.output).")
@click.option("--resume", is_flag=True, help="Go on from the last finished epoch.")
@click.option("--overwrite", is_flag=True, help="Start again in a folder that holds a training.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    config_name: str,
    overrides: tuple[str, ...],
    data_root: str | None,
    output: str | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a model from a preset or a configuration file with the groups model, data and train.

    The output folder gets model.safetensors (for psarm export), last.pt (for --resume), TensorBoard logs and, after
    the evaluation at the end, metrics.json.
    """
    needed = ("accelerate", "safetensors", "tensorboard", "torch", "torchvision", "yaml")
    require(*needed, feature="psarm train", extra="train")
    config = load_config(find_config(config_name), overrides)
    if data_root is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=data_root))
    if output is not None:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, output=output))
    _say_failed_writes_once()
    try:
        summary = _train(config, resume, overwrite)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(str(stop) or _how_to_go_on(config, overwrite)) from None
    if as_json:
        click.echo(json.dumps(summary, indent=2))
    else:
        _show(summary)


def _say_failed_writes_once() -> None:
    """TensorBoard's thread hands a failed write to the main thread, which ends with it, and would show it too."""
    show = threading.excepthook

    def show_others(arguments: threading.ExceptHookArgs) -> None:
        if not issubclass(arguments.exc_type, OSError):
            show(arguments)

    threading.excepthook = show_others


def _train(config: Config, resume: bool, overwrite: bool) -> dict[str, Any]:
    from psarm.training.trainer import train

    return _summary(train(config, resume=resume, overwrite=overwrite))


def _summary(result: TrainingResult) -> dict[str, Any]:
    return {
        "checkpoint": str(result.checkpoint),
        "epochs": result.epochs,
        "seconds": round(result.seconds, 1),
        "losses": result.losses,
        "metrics": result.metrics,
    }


def _show(summary: dict[str, Any]) -> None:
    from rich.table import Table

    from psarm.benchmarks.table import print_metrics
    from psarm.console import out

    losses = Table("loss", title=f"Trained {summary['epochs']} epochs", title_justify="left")
    losses.add_column("last epoch", justify="right")
    for name, value in summary["losses"].items():
        losses.add_row(name, f"{value:.4f}")
    out.print(losses)
    if summary["metrics"] is not None:
        print_metrics(summary["metrics"], out)
    checkpoint = summary["checkpoint"]
    out.print(f"Checkpoint: {checkpoint}", soft_wrap=True)
    out.print(f"Next: psarm export {checkpoint} --out {Path(checkpoint).parent / 'bundle.psarm'}", soft_wrap=True)


def _how_to_go_on(config: Config, overwrite: bool) -> str:
    from psarm.training.state import STATE_FILE

    if (Path(config.train.output) / STATE_FILE).exists():
        flag = "--resume in place of --overwrite" if overwrite else "--resume"
        return f"Every finished epoch is in {config.train.output}; run the same command with {flag} to go on."
    return "No epoch was finished, so there is nothing to resume; run the same command to start again."
