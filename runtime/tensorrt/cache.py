"""The engines of a bundle: found or built, in `engines/<key>/` beside it.

An engine belongs to a library version and a GPU, so it is no part of the bundle: the manifest does not list it. Where
the bundle cannot be written to, engines lie in the user's cache folder.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from psarm.errors import BundleError, PsarmError, UsageError
from psarm.files import cache_folder
from psarm.runtime.bundle import Bundle
from psarm.runtime.tensorrt.build import BuildSettings, build_plan, check_settings
from psarm.runtime.tensorrt.device import Gpu, find_gpu
from psarm.runtime.tensorrt.engine_files import Engines, Target, read_engines, renew, write_engines
from psarm.runtime.tensorrt.flavour import Flavour
from psarm.runtime.tensorrt.profiles import FrameShapes, default_frames, graph_profiles

LOCK = ".lock"
FORM_PRECISIONS = ("fp32", "fp16")
"""Precisions in which psarm exports TensorRT's form of the graphs."""
Say = Callable[[str], None]
OnPhase = Callable[[str, str], None]
"""Told the graph and the phase of its build."""


def make_target(
    bundle: Bundle,
    flavour: Flavour,
    precision: str,
    frames: Sequence[FrameShapes] | None = None,
    compute_capabilities: tuple[str, ...] = (),
) -> Target:
    """The target for this machine; `frames` None for the bundle's default profiles.

    Raises `UsageError` where the bundle has no TensorRT graphs of `precision`, or where the flavour does not build for
    the `compute_capabilities` (RTX only; none: those of the GPU that is here), `PsarmError` where it builds for the GPU
    that is here and none works.
    """
    graphs = _graph_hashes(bundle, precision)
    check_settings(flavour, BuildSettings(compute_capabilities=compute_capabilities))
    version, gpu = flavour.load().__version__, gpu_to_build_for(flavour)
    capabilities = compute_capabilities or (() if gpu is None else (gpu.compute_capability,))
    return Target(
        flavour.name,
        version,
        None if gpu is None or flavour.ahead_of_time else gpu.name,
        tuple(sorted(capabilities, key=float)),
        precision,
        graphs,
        tuple(default_frames(bundle.manifest) if frames is None else frames),
        bundle.manifest.thresholds.detections_per_image,
    )


def gpu_to_build_for(flavour: Flavour) -> Gpu | None:
    """The GPU of this machine, None where there is none and the flavour needs none.

    Raises `PsarmError` where it does.
    """
    gpu, why = find_gpu()
    if gpu is None and not flavour.ahead_of_time:
        raise PsarmError(f"{flavour.title} cannot build here, it builds for the GPU of this machine: {why}.")
    return gpu


def tensorrt_graphs(bundle: Bundle, precision: str) -> Mapping[str, str]:
    """Graph → file of the form that TensorRT builds from; raises `UsageError` where the bundle has none."""
    known = bundle.manifest.tensorrt
    if precision not in known:
        found = f"only {', '.join(known)}" if known else "none at all"
        advice = f"export it with --trt --precision {precision}"
        if precision not in FORM_PRECISIONS:
            advice = f"TensorRT's form of the graphs exists in {' and '.join(FORM_PRECISIONS)} only"
        raise UsageError(f"The bundle {bundle.path} holds no TensorRT graphs in {precision}, {found}; {advice}.")
    return known[precision]


def _graph_hashes(bundle: Bundle, precision: str) -> dict[str, str]:
    """Graph → SHA-256 of its file; raises as `tensorrt_graphs`."""
    return {name: bundle.manifest.files[file].sha256 for name, file in tensorrt_graphs(bundle, precision).items()}


def build_engines(
    bundle: Bundle,
    flavour: Flavour,
    target: Target,
    settings: BuildSettings | None = None,
    rebuild: bool = False,
    say: Say = lambda text: None,
    on_phase: OnPhase = lambda graph, phase: None,
) -> tuple[Engines, bool]:
    """The engines of `target`, built unless they are there; returns them and whether they were built now.

    They are then the newest of their precision: those that `find_engines` takes. `say` is told why they are built.
    Builds of one bundle wait for each other; one that is interrupted leaves nothing. Raises as `build_plan` does.
    """
    named = target.compute_capabilities if flavour.ahead_of_time else ()
    settings = dataclasses.replace(settings or BuildSettings(), compute_capabilities=named)
    check_settings(flavour, settings)
    if not rebuild and (there := _find_whole(bundle, target)) and _is_newest(bundle, there):
        return there, False
    folder = _writable_folder(bundle, say)
    with _lock(folder, say):
        for leftover in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
            shutil.rmtree(leftover)  # of a build that was killed while it wrote: nobody else has the lock
        if not rebuild and (there := _find_whole(bundle, target)):
            return there if _is_newest(bundle, there) else renew(there, folder), False
        say(f"Building engines: {_reason(bundle, target, rebuild)}.")
        plans = {}
        for graph, file in tensorrt_graphs(bundle, target.precision).items():
            profiles = graph_profiles(graph, target.frames, target.people)
            plans[graph] = build_plan(
                flavour, bundle.path / file, target.precision, profiles, settings, _telling(on_phase, graph)
            )
        return write_engines(folder / target.key, target, plans), True


def find_engines(bundle: Bundle, flavour: Flavour, precision: str, gpu: Gpu) -> Engines:
    """The newest engines that run here.

    Raises `BundleError` in one sentence where there are none: what there is instead, and the command to build them.
    """
    version, graphs = flavour.load().__version__, _graph_hashes(bundle, precision)
    there = [one for one in read_engines(_folders(bundle)) if one.target.flavour == flavour.name]
    there = [one for one in there if one.target.precision == precision]
    fitting = [one for one in there if _obstacle(one.target, version, graphs, gpu) is None]
    if fitting:
        return max(fitting, key=lambda one: one.created)
    command = build_command(bundle, flavour, precision)
    if not there:
        raise BundleError(
            f"The bundle {bundle.path} has no {precision} engines of {flavour.title}; build them with: {command}."
        )
    newest = max(there, key=lambda one: one.created)
    why = _obstacle(newest.target, version, graphs, gpu)
    raise BundleError(f"The engines in {newest.path} were built for {why}; build them again with: {command}.")


def build_command(bundle: Bundle, flavour: Flavour, precision: str) -> str:
    """What a user types to build engines."""
    return f"psarm engines {bundle.path} --flavour {flavour.name} --precision {precision}"


def _obstacle(built: Target, version: str, graphs: Mapping[str, str], gpu: Gpu) -> str | None:
    """Why engines cannot be used here, as the end of `were built for …`; None where they can."""
    if built.version != version:
        return f"version {built.version} of the library and {version} is installed"
    if not built.fits(gpu):
        return f"{built.place()} and this GPU is {gpu.name} (compute capability {gpu.compute_capability})"
    if built.graphs != graphs:
        return "other graphs than the bundle holds now"
    return None


def _find_whole(bundle: Bundle, target: Target) -> Engines | None:
    """Undamaged engines of `target`, wherever they lie."""
    return next((one for one in read_engines(_folders(bundle)) if one.target == target and one.whole), None)


def _is_newest(bundle: Bundle, engines: Engines) -> bool:
    """Whether no others of its flavour and precision are as new."""
    kind = (engines.target.flavour, engines.target.precision)
    others = [one for one in read_engines(_folders(bundle)) if (one.target.flavour, one.target.precision) == kind]
    return all(one.created < engines.created for one in others if one.path != engines.path)


def _reason(bundle: Bundle, target: Target, rebuild: bool) -> str:
    """Why a build is needed, in words."""
    if rebuild:
        return "as asked"
    there = read_engines(_folders(bundle))
    if damaged := next((one for one in there if one.target == target), None):
        return f"{damaged.path} is damaged"
    others = [one.target for one in there if one.target.flavour == target.flavour]
    others = [one for one in others if one.precision == target.precision]
    if not others:
        return f"the bundle has none of {target.precision} for {target.flavour} yet"
    for name, text in (
        ("version", "the library's version is {} and those there were built with {}"),
        ("gpu", "this GPU is {} and those there were built for {}"),
        ("compute_capabilities", "the compute capabilities are {} and those there were built for {}"),
    ):
        if all(getattr(one, name) != getattr(target, name) for one in others):
            return text.format(_words(getattr(target, name)), _words(getattr(others[-1], name)))
    if all(one.graphs != target.graphs for one in others):
        return "the bundle's graphs have changed since those there were built"
    return "those there have other profiles"


def _words(value: str | tuple[str, ...] | None) -> str:
    return (", ".join(value) if isinstance(value, tuple) else value) or "none by name"


def _folders(bundle: Bundle) -> list[Path]:
    """Where engines of this bundle can lie."""
    cache = cache_folder()
    beside = bundle.path / "engines"
    if cache is None:
        return [beside]
    return [beside, cache / "engines" / bundle.manifest.embedding.fingerprint[:16]]


def _writable_folder(bundle: Bundle, say: Say) -> Path:
    """The first folder that can be written to, made if need be."""
    folders = _folders(bundle)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / LOCK).touch()
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM) or folder == folders[-1]:
                raise
            say(f"{folder.parent} cannot be written to ({error.strerror}): engines go to {folders[-1]}.")
        else:
            return folder
    raise UsageError(f"The bundle {bundle.path} cannot be written to and there is no cache folder; set PSARM_CACHE.")


@contextmanager
def _lock(folder: Path, say: Say) -> Iterator[None]:
    """One build at a time: the second waits, and finds the first one's engines. A killed process holds no lock."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another process builds engines in {folder}: waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _telling(on_phase: OnPhase, graph: str) -> Callable[[str], None]:
    return lambda phase: on_phase(graph, phase)
