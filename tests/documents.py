"""The commands in a page of documentation, and what the page says they print."""

import re
import shlex

import click

from psarm.cli import COMMANDS, cli


def console_commands(text):
    """(words, what the page shows) of every `$ psarm` line in the page's console blocks."""
    commands = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ psarm ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            commands.append((shlex.split(line), shown))
    return commands


def python_blocks(text):
    """The page's Python code."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def section(text, heading):
    """What stands under a `## heading`."""
    [found] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return found


def assert_commands_exist(text):
    """Every `psarm COMMAND --option` of the page is one psarm knows."""
    for line in re.findall(r"^\$? ?psarm ([a-z]+ .*)$", text, re.MULTILINE):
        words = line.split("   ")[0].split()
        command = cli.get_command(click.Context(cli), words[0])
        assert words[0] in COMMANDS and command is not None
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words[1])
            assert command is not None, line
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, line


def assert_links_lead_somewhere(text, folder):
    """Every file that a page in `folder` links to exists."""
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (folder / target).exists(), target
