"""The report as one HTML page: style, plots and pictures inside, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from psarm.benchmarks.page import template
from psarm.benchmarks.page.parts import facts_list, table, whole_page
from psarm.benchmarks.paper.examples import Example, ShownHit
from psarm.benchmarks.paper.page_plots import boxes_section, galleries_section, speed_section
from psarm.benchmarks.paper.page_tables import accuracy_section
from psarm.benchmarks.paper.published import title_of
from psarm.benchmarks.paper.report import PaperReport

RANKS = ("top-1", "top-2")


def paper_page(report: PaperReport) -> str:
    """The page as text."""
    data = report.facts["dataset"]
    sections = [
        ("accuracy", "Accuracy, size and work (Tables 1 and 2)", accuracy_section(report)),
        ("speed", "Accuracy against speed (Fig. 1)", speed_section(report)),
        ("galleries", "Gallery size (Fig. 5)", galleries_section(report)),
        ("boxes", "Ground-truth boxes (Fig. 8)", boxes_section(report)),
        ("examples", "Who was found (Fig. 6 and 7)", _examples(report)),
        ("how", "How it was measured", _how(report)),
    ]
    names = ", ".join(result.contender.name for result in report.results)
    subtitle = (
        f"{data['gallery_frames']:,} gallery frames, {data['queries']:,} queries, default gallery "
        f"{data['default_gallery']}; the experiments of PS-ARM (Fiaz et al., ACCV 2022)."
    )
    title = f"Person search on {title_of(data['name'])}: {names}"
    return whole_page(title, subtitle, report.warning, sections, report.facts["date"])


def _examples(report: PaperReport) -> str:
    if not report.examples:
        return "<p>None were asked for.</p>"
    differ = sum(example.disagreed for example in report.examples)
    names = [result.contender.name for result in report.results]
    lead = (
        f"{len(report.examples)} queries, drawn with seed {report.settings.seed}"
        + (f", first {differ} on which the checkpoints disagree at rank 1" if len(names) > 1 else "")
        + ". A whole green frame and ✓ mark the person searched for, a broken red one and ✗ somebody else "
        "(or the same person a second time in a frame). Search in the default gallery, with CBGM."
    )
    cards = "\n".join(_example(example, names) for example in report.examples)
    return f'<p>{lead}</p>\n<div class="examples">\n{cards}\n</div>'


def _example(example: Example, names: Sequence[str]) -> str:
    query = example.person
    rows = []
    for name, hits in zip(names, example.hits, strict=True):
        crops = "".join(_hit(name, rank, hit) for rank, hit in zip(RANKS, hits, strict=False))
        found = crops or '<span class="soft">found nobody</span>'
        rows.append(f'<div><h3>{html.escape(name)}</h3><div class="pair">{found}</div></div>')
    return template.EXAMPLE.format(
        number=example.query,
        note="the checkpoints disagree" if example.disagreed else "",
        query=_crop(
            "query", query.jpeg, f"Query: person {example.identity} in {query.frame}", "<b>query</b><br>", query.frame
        ),
        hits="\n".join(rows),
    )


def _hit(name: str, rank: str, hit: ShownHit) -> str:
    word, mark = ("right", "✓") if hit.right else ("wrong", "✗")
    alt = f"{rank} of {name}: {word}, in {hit.person.frame}, similarity {hit.similarity:.2f}"
    text = f"<b>{mark} {rank}</b><br>{hit.similarity:.2f}<br>"
    return _crop(word, hit.person.jpeg, alt, text, hit.person.frame)


def _crop(kind: str, jpeg: bytes, alt: str, text: str, frame: str) -> str:
    data = base64.b64encode(jpeg).decode("ascii")
    caption = f"<figcaption>{text}{html.escape(frame)}</figcaption>"
    return template.CROP.format(kind=kind, data=data, alt=html.escape(alt), text=caption)


def _how(report: PaperReport) -> str:
    facts = report.facts
    machine, data = facts["machine"], facts["dataset"]
    gpus = "".join(f", {gpu}" for gpu in machine["gpus"])
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    entries = {
        "Data": f"{title_of(data['name'])} at {data['root']}; frames of {' and '.join(data['image_sizes'])}, "
        f"{data['people_per_frame']:g} people in a frame (median)",
        "Machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.1f} GiB, "
        f"{machine['system']}{gpus}",
        "Speed": f"medians over {min(report.settings.frames, data['gallery_frames'])} gallery frames, checkpoints "
        f"interleaved after warm-up, one image at a time, decoding the file not in it; measured {report.speed}",
        "Report": f"made {facts['date']}",
        "Versions": versions + (f"; commit {facts['commit']}" if facts["commit"] else ""),
    }
    head = [("checkpoint", "file", "SHA-256", "accuracy measured")]
    body = [
        (r.contender.name, [str(r.contender.path), r.contender.sha256[:16], str(r.measured)]) for r in report.results
    ]
    files = table("Checkpoint files", head, body)
    command = f"<p>Again: <code>{html.escape(report.settings.command())}</code></p>"
    return f"{facts_list(entries)}\n{files}\n{command}"
