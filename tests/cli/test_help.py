"""Every command and option explains itself, quickly and without torch."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from psarm.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]


def walk(command, context):
    """Yield `command` and every subcommand below it with its context."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, f"{context.command_path} lists {name} and does not have it"
            yield from walk(child, click.Context(child, parent=context, info_name=name))


def subtree(name):
    root = click.Context(cli, info_name="psarm")
    command = cli.get_command(root, name)
    return list(walk(command, click.Context(command, parent=root, info_name=name)))


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_options_have_help(name):
    for command, context in subtree(name):
        assert command.help, f"{context.command_path} has no help"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{context.command_path} {parameter.opts[0]} has no help"
        assert command.get_help(context).startswith(f"Usage: {context.command_path}")


@pytest.mark.parametrize("name", COMMANDS)
def test_purpose_in_the_list_fits_one_line(name):
    lines = cli.get_help(click.Context(cli, info_name="psarm", terminal_width=80)).splitlines()
    [line] = [line for line in lines if line.startswith(f"  {name} ")]
    assert line.endswith(f" {COMMANDS[name]}")


@pytest.mark.parametrize("name", COMMANDS)
def test_purpose_in_the_list_of_a_group_is_whole(name):
    for command, context in subtree(name):
        if isinstance(command, click.Group):
            context.terminal_width = 80
            listed = command.get_help(context).partition("Commands:")[2]
            assert "..." not in listed and len(listed.strip().splitlines()) == len(command.list_commands(context))


def test_unknown_command_is_a_usage_error():
    with pytest.raises(click.UsageError, match="No such command 'serch'"):
        cli.main(["serch"], standalone_mode=False)


def test_help_of_every_command_loads_nothing_heavy():
    code = f"""
import sys
from psarm.cli import run
codes = [run([name, "--help"]) for name in {list(COMMANDS)}]
assert codes == [0] * len(codes), codes
heavy = {{"torch", "torchvision", "onnx", "numpy", "cv2", "scipy", "onnxruntime", "openvino", "rich.console"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_launcher_of_the_checkout():
    result = subprocess.run([sys.executable, "cli.py", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.startswith("psarm, version ")
