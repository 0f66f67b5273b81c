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
        if auto:
            out.print(f"auto takes {auto}.", markup=False, highlight=False, soft_wrap=True)
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


def _to_text(runs: Runs) -> str:
    """A line for what runs and one for each thing that must be made first."""
    ready = ", ".join(name for name, what in runs.items() if what is None)
    lines = [ready] if ready else []
    for lacks in dict.fromkeys(what for what in runs.values() if what is not None):
        lines.append(f"{', '.join(name for name, what in runs.items() if what == lacks)}: {lacks}")
    return "\n".join(lines)


def _print_tables(
    versions: dict[str, str | None],
    machine: Machine,
    backends: list[BackendStatus],
    runs: dict[str, Runs],
) -> None:
    from rich.table import Table
    from rich.text import Text

    from psarm.console import out, print_whole

    packages = Table("package", "version", title="Versions", title_justify="left")
    for name, version in versions.items():
        packages.add_row(name, Text(version) if version else Text("not installed", style="dim"))
    out.print(packages)

    facts = Table("fact", "value", title="Machine", title_justify="left")
    facts.add_row("system", Text(machine.system))
    facts.add_row("processor", Text(machine.cpu))
    facts.add_row("cores", f"{machine.cores} physical, {machine.threads} usable threads")
    facts.add_row("memory", f"{machine.memory_bytes / 2**30:.1f} GiB")
    facts.add_row("GPU", Text("\n".join(machine.gpus) or f"none ({machine.gpu_detail})"))
    print_whole(facts, out)

    columns = ("backend", "loads", *(["runs the bundle in"] if runs else []), "detail")
    table = Table(*columns, title="Backends", title_justify="left")
    for backend in backends:
        loads = Text("yes", style="green") if backend.loads else Text("no", style="red")
        nothing = "nothing: the bundle holds nothing for it" if backend.loads else "–"
        precisions = [Text(_to_text(runs[backend.name]) or nothing)] if runs else []
        table.add_row(backend.name, loads, *precisions, Text(backend.detail))
    print_whole(table, out)
