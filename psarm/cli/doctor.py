"""`psarm doctor`: what is installed, what this machine is, which backends really load and what they run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from psarm.errors import PsarmError
    from psarm.machine import Machine
    from psarm.runtime.backends import BackendStatus

Runs = dict[str, str | None]
"""Precision → what must be made before a backend runs the bundle in it, None where nothing."""


@click.command()
@click.argument("bundle", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(bundle: Path | None, as_json: bool) -> None:
    """Show versions and which backends load on this machine, and why others do not.

    Every backend is really started, not only looked up. With a BUNDLE, the precisions in which each backend runs it,
    and which one auto takes. Exit code 0 when at least one loads and the BUNDLE is good, else 1.
    """
    from psarm.console import out
    from psarm.errors import PsarmError
    from psarm.machine import describe_machine, package_versions
    from psarm.runtime.backends import probe_backends

    versions, machine, backends = package_versions(), describe_machine(), probe_backends()
    runs, auto, failure = ({}, "", None) if bundle is None else _what_runs(bundle, backends)
    if as_json:
        rows = [dataclasses.asdict(one) | (_to_dict(runs[one.name]) if runs else {}) for one in backends]
        report = {"versions": versions, "machine": dataclasses.asdict(machine), "backends": rows}
        out.print_json(json.dumps(report | ({"auto": auto} if auto else {})))
    else:
        _print_tables(versions, machine, backends, runs)
        for line in _auto_lines(auto):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
    if failure is not None:
        raise failure
    if not any(backend.loads for backend in backends):
        raise PsarmError("No backend loads on this machine; install one with: pip install onnxruntime.")


def _what_runs(path: Path, backends: list[BackendStatus]) -> tuple[dict[str, Runs], str, PsarmError | None]:
    """What each backend runs the bundle in, and what auto takes and why; where the bundle fails, what is wrong."""
    from psarm.errors import PsarmError
    from psarm.machine import default_threads
    from psarm.runtime import Bundle, PersonSearch
    from psarm.runtime.backends import conditions

    runs: dict[str, Runs] = {}
    try:
        bundle = Bundle.open(path)
        runs = {one.name: conditions(bundle, one.name) if one.loads else {} for one in backends}
        if not any(missing is None for found in runs.values() for missing in found.values()):
            return runs, "", None
        with PersonSearch(bundle, threads=default_threads()) as engine:  # as the other commands do
            return runs, engine.reason, None
    except PsarmError as error:
        return runs, "", error


def _to_dict(runs: Runs) -> dict[str, object]:
    ready = [name for name, what in runs.items() if what is None]
    return {"precisions": ready, "lacks": {name: what for name, what in runs.items() if what is not None}}


def _ready(runs: Runs) -> str:
    """The precisions that run as the bundle is."""
    return ", ".join(name for name, what in runs.items() if what is None)


def _lacking(runs: Runs) -> list[str]:
    """A line for each thing that must be made before others run."""
    lacks = dict.fromkeys(what for what in runs.values() if what is not None)
    return [f"{', '.join(name for name, what in runs.items() if what == one)}: {one}" for one in lacks]


def _auto_lines(auto: str) -> list[str]:
    """What auto takes, and on a line of its own what it passed over; nothing where it takes nothing."""
    taken, _, others = auto.removesuffix(")").partition("; passed over: ")
    if not others:
        return [f"auto takes {auto}."] if auto else []
    return [f"auto takes {taken}).", f"It passed over {others}."]


def _print_tables(
    versions: dict[str, str | None],
    machine: Machine,
    backends: list[BackendStatus],
    runs: dict[str, Runs],
) -> None:
    from rich.table import Table
    from rich.text import Text

    from psarm.cli.gallery_words import counted
    from psarm.console import out, print_whole

    packages = Table("package", "version", title="Versions", title_justify="left")
    for name, version in versions.items():
        packages.add_row(name, Text(version) if version else Text("not installed", style="dim"))
    out.print(packages)

    facts = Table("fact", "value", title="Machine", title_justify="left")
    facts.add_row("system", Text(machine.system))
    facts.add_row("processor", Text(machine.cpu))
    facts.add_row("cores", f"{machine.cores} physical, {counted(machine.threads, 'usable thread')}")
    facts.add_row("memory", f"{machine.memory_bytes / 2**30:.1f} GiB")
    facts.add_row("GPU", Text("\n".join(machine.gpus) or f"none ({machine.gpu_detail})"))
    print_whole(facts, out)

    _print_backends(backends, runs)


def _print_backends(backends: list[BackendStatus], runs: dict[str, Runs]) -> None:
    """A table that fits 80 columns, and below it what is long: why or how each loads, and what it lacks."""
    from rich.table import Table
    from rich.text import Text

    from psarm.console import out

    table = Table("backend", "loads", *(["runs the bundle in"] if runs else []), title="Backends", title_justify="left")
    details = []
    for backend in backends:
        found = runs.get(backend.name, {})
        lacking = [f"{backend.name} in {line}" for line in _lacking(found)]
        details += [f"{backend.name}: {backend.detail}", *lacking]
        loads = Text("yes", style="green") if backend.loads else Text("no", style="red")
        nothing = "nothing: the bundle holds nothing for it" if backend.loads else "–"
        ready = _ready(found) or ("nothing yet" if lacking else nothing)
        table.add_row(backend.name, loads, *([ready] if runs else []))
    out.print(table)
    for line in details:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
