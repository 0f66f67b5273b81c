"""`psarm bench`: accuracy and speed, the score of a detections file, the paper's suite, or two reports compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from psarm.cli.checkpoint_path import NamedCheckpointPath
from psarm.cli.output_files import check_page
from psarm.config import DATASETS
from psarm.errors import DataError, PsarmError, UsageError

if TYPE_CHECKING:
    from psarm.benchmarks import BenchSettings

DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(path_type=Path)
TARGET = click.Path(dir_okay=False, path_type=Path)
COMMON = ("data_root", "dataset", "json_path", "help")
THRESHOLD = 1.1


class ImageSize(click.ParamType[tuple[int, int]]):
    """`1920x1080` → width and height."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Fail unless it is two whole numbers."""
        width, _, height = str(value).partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            self.fail(f"{value!r} is no size; needed WIDTHxHEIGHT in pixels, as 1920x1080.", param, ctx)
        return int(width), int(height)


@dataclass(frozen=True)
class _Mode:
    """A way to run the command that takes some of its options only."""

    reason: str
    """Why the others do not go with it."""
    options: tuple[str, ...]
    common: tuple[str, ...] = COMMON
    """Options it takes as all others do."""

    def refuse_others(self) -> None:
        """Raise `UsageError` where options stand on the command line that do not go with this mode."""
        others = _given(lambda name: name not in (*self.common, *self.options))
        if others:
            raise UsageError(f"{self.reason}; leave out {', '.join(others)}.")


COMPARE = _Mode("--compare reads two reports and measures nothing", ("compare", "threshold"), ())
ONLY_SUITE = ("out", "fresh", "examples", "seed")
SUITE = _Mode("--suite paper measures checkpoints", ("suite", "checkpoints", "threads", "frames", *ONLY_SUITE))
DETECTIONS = _Mode(
    "--detections scores a file without running a model", ("detections", "cbgm", "cross_camera", "gallery_sizes")
)


@click.command()
@click.argument("bundle", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--dataset", type=click.Choice(DATASETS), default="prw", show_default=True, help="Data set.")
@click.option("--data-root", type=DIRECTORY, metavar="DIR", help="Folder of the data set; not with --compare.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=NamedCheckpointPath(),
    metavar="[NAME=]CKPT",
    help="PyTorch model to compare with: the bundle's origin. With --suite, the models to measure (repeatable).",
)
@click.option("--detections", type=FILE, metavar="FILE.npz", help="Score this detections file; no model is run.")
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Only this backend (repeatable).")
@click.option("--precision", "precisions", multiple=True, metavar="NAME", help="Only this precision (repeatable).")
@click.option("--cbgm/--no-cbgm", default=None, help="Also measure search with context graph matching.")
@click.option("--cross-camera", is_flag=True, help="Also show search in the frames of other cameras only.")
@click.option(
    "--gallery-size",
    "gallery_sizes",
    multiple=True,
    metavar="SIZE",
    help="Also search in galleries of SIZE: 50, 100, 500, 1000, 2000 or 4000 on CUHK-SYSU, full anywhere (repeatable).",
)
@click.option("--gt-boxes", is_flag=True, help="Also measure search among the ground-truth boxes (default gallery).")
@click.option("--baselines", is_flag=True, help="Add colour-histogram matching and the untrained network.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of every engine  [default: OMP_NUM_THREADS, or usable cores].",
)
@click.option("--frames", type=click.IntRange(min=1), help="Gallery frames to time  [default: 30].")
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(min=1),
    help="Frames a call, a row each (repeatable)  [default: 1].",
)
@click.option(
    "--people",
    multiple=True,
    type=click.IntRange(min=0),
    help="People to embed in every frame, a row each (repeatable)  [default: those found].",
)
@click.option(
    "--image-size",
    "image_sizes",
    multiple=True,
    type=ImageSize(),
    metavar="WxH",
    help="Width and height to bring frames to, as 1920x1080; a row each (repeatable)  [default: as they are].",
)
@click.option("--growth", metavar="NAMES", help="Curves of growing cost: people,size,batch,gallery or some of them.")
@click.option("--quick", is_flag=True, help="Leave out cold start, memory and roofline.")
@click.option("--html", "html_path", type=TARGET, metavar="PAGE.html", help="Write everything measured as a page.")
@click.option("--compare", type=(FILE, FILE), metavar="OLD NEW", help="Two --json files: what has become worse?")
@click.option(
    "--threshold",
    type=click.FloatRange(min=1),
    default=THRESHOLD,
    show_default=True,
    help="Compare: how many times as bad is a regression.",
)
@click.option("--suite", type=click.Choice(["paper"]), help="Measure checkpoints as the paper does, as said above.")
@click.option("--out", type=FOLDER, metavar="DIR", help="Suite: folder of the report and of the results so far.")
@click.option("--fresh", is_flag=True, help="Suite: measure everything again.")
@click.option("--examples", type=click.IntRange(min=0), help="Suite: queries to show  [default: 12].")
@click.option("--seed", type=click.IntRange(min=0), help="Suite: draws these queries  [default: 0].")
@click.option("--json", "json_path", type=TARGET, metavar="OUT.json", help="Write everything measured as JSON.")
@click.option("--save-detections", type=TARGET, metavar="OUT.npz", help="Write what the bundle's first row found.")
def command(
    bundle: Path | None,
    dataset: str,
    data_root: Path | None,
    detections: Path | None,
    suite: str | None,
    compare: tuple[Path, Path] | None,
    threshold: float,
    json_path: Path | None,
    **options: Any,
) -> None:
    """Accuracy and speed of every backend of BUNDLE beside the PyTorch model (--checkpoint), in one table.

    With --detections and no BUNDLE, the file is scored and nothing is timed.

    With --suite paper, the paper's tables and figures are measured for every --checkpoint and written to --out as one
    HTML page, beside the published figures. What an earlier run into the same folder measured is kept.

    With --compare, two reports are set side by side, and the exit code is 1 where something has become worse.
    """
    if compare is not None:
        COMPARE.refuse_others()
        _compare(*compare, threshold)
        return
    if _given(lambda name: name == "threshold"):
        raise UsageError("--threshold goes with --compare only.")
    if data_root is None:
        raise click.MissingParameter(param_hint="'--data-root'", param_type="option")
    if suite is not None:
        SUITE.refuse_others()
        _run_suite(dataset, data_root, options, json_path)
    elif detections is not None:
        DETECTIONS.refuse_others()
        chosen = {key: options[key] for key in ("gallery_sizes", "cbgm", "cross_camera")}
        _score_file(detections, dataset, data_root, json_path, **chosen)
    else:
        html_path, save = options.pop("html_path"), options["save_detections"]
        targets = [path.resolve() for path in (json_path, html_path, save) if path is not None]
        if len(set(targets)) < len(targets):
            raise UsageError("--json, --html and --save-detections write a file each; give them different names.")
        check_page("--html", html_path)
        _run(_settings(bundle, dataset, data_root, options), json_path, html_path)


def _given(wanted: Callable[[str], bool]) -> list[str]:
    """The parameters on the command line whose names are `wanted`, as they are typed."""
    context = click.get_current_context()
    return [
        parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name
        for parameter in context.command.params
        if wanted(parameter.name or "")
        and context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
    ]


def _settings(bundle: Path | None, dataset: str, data_root: Path, options: dict[str, Any]) -> BenchSettings:
    from psarm.benchmarks import BenchSettings
    from psarm.benchmarks.settings import TIMING_FRAMES

    only_suite = _given(lambda name: name in ONLY_SUITE)
    if only_suite:
        raise UsageError(f"{', '.join(only_suite)} goes with --suite paper only.")
    checkpoints = options.pop("checkpoints")
    if len(checkpoints) > 1 or any(checkpoint.name for checkpoint in checkpoints):
        raise UsageError("--checkpoint is one file without a name here; several, with names, go with --suite paper.")
    growth = options.pop("growth") or ""
    return BenchSettings(
        data_root=data_root,
        bundle=bundle,
        checkpoint=checkpoints[0].path if checkpoints else None,
        dataset=dataset,
        cbgm=bool(options.pop("cbgm")),
        frames=options.pop("frames") or TIMING_FRAMES,
        growth=tuple(name.strip() for name in growth.split(",") if name.strip()),
        batches=options.pop("batches") or (1,),
        people=options.pop("people") or (None,),
        image_sizes=options.pop("image_sizes") or (None,),
        **{key: value for key, value in options.items() if key not in ONLY_SUITE},
    )


def _run_suite(dataset: str, data_root: Path, options: dict[str, Any], json_path: Path | None) -> None:
    from psarm.benchmarks.paper import PaperSettings, print_paper, run_paper_suite
    from psarm.console import out
    from psarm.files import write_json

    if options["out"] is None:
        raise UsageError("--suite paper needs --out DIR, the folder of its report.")
    keys = ("out", "checkpoints", "fresh", "threads", "frames", "examples", "seed")
    given = {key: options[key] for key in keys if options[key] is not None}
    report = run_paper_suite(PaperSettings(data_root=data_root, dataset=dataset, **given))
    print_paper(report, out)
    if json_path is not None:
        write_json(json_path, report.to_dict())


def _run(settings: BenchSettings, json_path: Path | None, html_path: Path | None) -> None:
    from psarm.benchmarks import print_report, run_benchmark
    from psarm.console import out
    from psarm.extras import require
    from psarm.files import write_json, write_text

    if html_path is not None:  # known before anything is measured
        require("matplotlib", feature="psarm bench --html", extra="paper")
    report = run_benchmark(settings)
    print_report(report, out)
    if json_path is not None:
        write_json(json_path, report.to_dict())
        out.print(f"Report: {json_path}", markup=False, soft_wrap=True)
    if html_path is not None:
        from psarm.benchmarks.page.bench import bench_page

        write_text(html_path, bench_page(report))
        out.print(f"Page: {html_path}", markup=False, soft_wrap=True)
    if not any(row.ok for row in report.rows):
        raise PsarmError("Nothing ran; the lines above say why.")
    failed = dict.fromkeys(f"{row.name} {row.precision}" for row in report.rows if row.requested and not row.ok)
    if failed:
        raise PsarmError(f"{', '.join(failed)} did not run; the lines above say why.")


def _score_file(
    path: Path,
    dataset: str,
    root: Path,
    json_path: Path | None,
    gallery_sizes: tuple[str, ...],
    cbgm: bool | None,
    cross_camera: bool,
) -> None:
    """Score a detections file. Without --cbgm or --no-cbgm, CBGM is measured when the file has contexts."""
    from psarm.benchmarks.table import print_metrics
    from psarm.console import out
    from psarm.data.readers import read_dataset
    from psarm.evaluation import SearchProtocol, read_detections, score_detections
    from psarm.files import write_json

    content = read_detections(path)
    if cbgm and content.context is None:
        raise DataError(f"{path} has no contexts of the queries (context_counts, …), which --cbgm needs.")
    if cbgm is False:
        content = dataclasses.replace(content, context=None)
    data = read_dataset(dataset, root)
    protocol = SearchProtocol.from_dataset(data)
    if cross_camera:  # shown wherever there are several cameras
        protocol.check_cross_camera()
    metrics = score_detections(protocol, content, gallery_sizes=gallery_sizes)
    print_metrics(metrics, out)
    if data.default_gallery is not None:
        out.print(f"Search: gallery {data.default_gallery} where no other is named")
    if json_path is not None:
        write_json(json_path, metrics)


def _compare(old: Path, new: Path, threshold: float) -> None:
    from psarm.benchmarks.compare import compare_reports, print_comparison, read_report
    from psarm.cli.gallery_words import counted
    from psarm.console import out

    comparison = compare_reports(read_report(old), read_report(new))
    print_comparison(comparison, threshold, out)
    regressions = comparison.regressions(threshold)
    if regressions or comparison.broken:
        measures, rows = len(regressions), len(comparison.broken)
        worse = f"{counted(measures, 'measure')} {'is' if measures == 1 else 'are'} worse by more than ×{threshold:g}"
        broken = f"{counted(rows, 'row')} no longer {'runs' if rows == 1 else 'run'}"
        said = " and ".join(words for words, number in ((worse, measures), (broken, rows)) if number)
        raise PsarmError(f"{said}; the lines above say which.")
    out.print(f"Nothing is worse by more than ×{threshold:g}.")
