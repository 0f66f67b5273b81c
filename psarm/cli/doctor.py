"""`psarm doctor`: what is installed, what this machine is, and which backends really load."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from psarm.machine import Machine
    from psarm.runtime.backends import BackendStatus


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(as_json: bool) -> None:
    """Show versions and which backends load on this machine, and why others do not.

    Every backend is really started, not only looked up. Exit code 0 when at least one loads, else 1.
    """
    from psarm.console import out
    from psarm.errors import PsarmError
    from psarm.machine import describe_machine, package_versions
    from psarm.runtime.backends import probe_backends

    versions, machine, backends = package_versions(), describe_machine(), probe_backends()
    if as_json:
        report = {
            "versions": versions,
            "machine": dataclasses.asdict(machine),
            "backends": [{"name": b.name, "loads": b.loads, "detail": b.detail} for b in backends],
        }
        out.print_json(json.dumps(report))
    else:
        _print_tables(versions, machine, backends)
    if not any(backend.loads for backend in backends):
        raise PsarmError("No backend loads on this machine; install one with: pip install onnxruntime.")


def _print_tables(versions: dict[str, str | None], machine: Machine, backends: list[BackendStatus]) -> None:
    from rich.table import Table
    from rich.text import Text

    from psarm.console import out

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
    out.print(facts)

    table = Table("backend", "loads", "detail", title="Backends", title_justify="left")
    for backend in backends:
        loads = Text("yes", style="green") if backend.loads else Text("no", style="red")
        table.add_row(backend.name, loads, Text(backend.detail))
    out.print(table)
