"""An exported model on disk: a directory with `manifest.json` and the files it lists."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from psarm.errors import BundleError, UsageError
from psarm.files import sha256
from psarm.machine import usable_cores
from psarm.runtime.manifest import MANIFEST_NAME, Manifest, read_manifest


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are known to be what the manifest says; make one with `Bundle.open`."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read the manifest and verify the size and SHA-256 of every file it lists.

        Raises `BundleError` when the directory is not a bundle, comes from a newer psarm, or was changed.
        """
        path = Path(path)
        if not path.exists():
            raise BundleError(f"There is no bundle at {path}; make one with: psarm export CHECKPOINT --out {path}.")
        if not path.is_dir():
            raise BundleError(
                f"{path} is a file, not a bundle directory; give the directory that holds {MANIFEST_NAME}, "
                "or turn a checkpoint into a bundle with psarm export."
            )
        if not (path / MANIFEST_NAME).is_file():
            raise BundleError(
                f"{path} is not a bundle: it holds no {MANIFEST_NAME}; "
                "make a bundle with: psarm export CHECKPOINT --out DIR."
            )
        bundle = cls(path, read_manifest(path))
        bundle.verify()
        return bundle

    def verify(self) -> None:
        """Compare every listed file with the manifest, sizes first; raises `BundleError` for the first that differs."""
        files = {self.path / name: expected for name, expected in self.manifest.files.items()}
        for file, expected in files.items():
            if not file.is_file():
                name = file.relative_to(self.path)
                raise BundleError(f"The bundle {self.path} lacks its file {name}; copy it again or export again.")
            size = file.stat().st_size
            if size != expected.size:
                raise BundleError(
                    f"{file} has {size} bytes, its manifest says {expected.size}: the file is incomplete or was "
                    "replaced; copy the bundle again or export again."
                )
        with ThreadPoolExecutor(usable_cores()) as threads:  # hashing lets other threads run
            hashes = threads.map(sha256, files)
        for file, found in zip(files, hashes, strict=True):
            if found != files[file].sha256:
                raise BundleError(
                    f"{file} is not the file its manifest describes (SHA-256 differs): it was changed or damaged; "
                    "copy the bundle again or export again."
                )

    def resolve_precision(self, precision: str) -> str:
        """`auto` → fp32 where the bundle holds it, else its first; raises `UsageError` for one it does not hold."""
        present = list(self.manifest.precisions)
        if precision == "auto":
            return "fp32" if "fp32" in present else present[0]
        if precision == "bf16":
            raise UsageError(
                f"The bundle {self.path} holds no bf16 graphs, only {', '.join(present)}: OpenVINO and torch run the "
                "fp32 ones in bf16; ask for one of them."
            )
        if precision not in present:
            raise UsageError(
                f"The bundle {self.path} holds no {precision} graphs, only {', '.join(present)}; "
                f"export it with: psarm export CHECKPOINT --out DIR --precision {','.join([*present, precision])}"
                f"{' --calibrate DATA' if precision == 'int8' else ''}."
            )
        return precision

    def graph_path(self, precision: str, graph: str) -> Path:
        """The ONNX file of the graph `detect`, `refine` or `reid`."""
        return self.path / self.manifest.precisions[precision][graph]

    def graph_bytes(self, precision: str) -> int:
        """Size on disk of all graphs that are run in `precision`; one without graphs of its own runs the first ones."""
        graphs = self.manifest.precisions.get(precision) or next(iter(self.manifest.precisions.values()))
        names = set(graphs.values())
        return sum(self.manifest.files[name].size for name in names)
