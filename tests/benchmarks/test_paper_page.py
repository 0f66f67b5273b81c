"""The paper's report as a page: whole in itself, readable without colours, and safe with any name."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from paper_runs import Page

from psarm.benchmarks.model_cost import Cost, Macs
from psarm.benchmarks.page import charts
from psarm.benchmarks.paper import PaperReport, PaperSettings, page_plots, print_paper
from psarm.benchmarks.paper.conditions import Conditions
from psarm.benchmarks.paper.contender import Contender
from psarm.benchmarks.paper.examples import Example, Shown, ShownHit, choose, make_examples
from psarm.benchmarks.paper.page import paper_page
from psarm.benchmarks.paper.published import matching_row, not_comparable, published_rows
from psarm.benchmarks.paper.report import Gallery, Result
from psarm.benchmarks.paper.settings import NamedCheckpoint
from psarm.config import ModelConfig
from psarm.console import Console
from psarm.evaluation import QueryHits

NAMES = [
    "PS-ARM",
    '<script>&"$x_1$</script>',
    "_人物検索",
    "<img src=x onerror=alert(1)> a name that nobody would type",
]
GROUPS = ["search", "search_50", "search_full", "search_gt_boxes"]
JPEG = cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
FACTS = {
    "date": "2026-01-01T00:00:00+00:00",
    "commit": None,
    "threads": 1,
    "versions": {"torch": "2.11", "onnx": None},
    "machine": {"cpu": "a <cpu>", "cores": 2, "memory_bytes": 2**33, "system": "Linux", "gpus": ["a GPU"]},
    "dataset": {
        "name": "cuhk-sysu",
        "root": "/data",
        "gallery_frames": 7000,
        "queries": 3,
        "image_sizes": ["800x600"],
        "people_per_frame": 4.0,
        "default_gallery": "100",
    },
}

CONDITIONS = Conditions("last week", "abc1234", "CPU, 1 thread", "a <cpu>", "Linux")


def result(number, dataset="cuhk-sysu", **model):
    metrics = {f"{group}{suffix}": {} for group in GROUPS for suffix in ("", "_cbgm")}
    for place, values in enumerate(metrics.values()):
        values |= {"mAP": 0.5 + number / 10 + place / 1000, "top1": 0.6, "top5": 0.7, "top10": 0.8}
    metrics["detection"] = {"recall": 0.9, "ap": 0.8}
    config = ModelConfig(**model)
    contender = Contender(NAMES[number], Path("a.pth"), "0" * 64, config, Cost(10**7, Macs(1, 2, 3, 4)))
    timing = {"fps": 2.0 * (number + 1), "frames": 3}
    return Result(
        contender, metrics, replace(CONDITIONS, date="yesterday"), timing, matching_row(config, published_rows(dataset))
    )


def report(count=2, dataset="cuhk-sysu", **changes):
    hits = [[ShownHit(Shown("s2.jpg", [0, 0, 9, 9], JPEG), 0.5, n == 0)] * (2 - n % 2) for n in range(count)]
    values = {
        "settings": PaperSettings(Path("/data"), (NamedCheckpoint(Path("a.pth")),), Path("out"), dataset),
        "facts": FACTS,
        "speed": CONDITIONS,
        "results": [result(number) for number in range(count)],
        "galleries": [
            Gallery("50", 50, "search_50"),
            Gallery("100", 100, "search"),
            Gallery("full", 7000, "search_full"),
        ],
        "published": published_rows(dataset),
        "warning": "",
        "examples": [Example(7, 5, True, Shown("s1.jpg", [1, 2, 3, 4], JPEG), hits)],
    }
    return PaperReport(**{**values, **changes})


@pytest.fixture(scope="module")
def default():
    """The page of `report()`: drawing the plots is what takes long."""
    return paper_page(report())


@pytest.fixture
def no_plots(monkeypatch):
    for name in ("speed_chart", "gallery_chart", "boxes_chart"):
        monkeypatch.setattr(page_plots, name, lambda *_: "")


@pytest.mark.parametrize(("count", "galleries"), [(1, True), (1, False), (4, True)])
def test_the_page_is_whole_in_itself(count, galleries):
    text = paper_page(report(count) if galleries else report(count, galleries=[]))
    page = Page(text)
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    links = page.attributes("href")
    assert links and {link.removeprefix("#") for link in links} <= set(identifiers)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(identifiers)
    sources = page.attributes("src")
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    without_pictures = re.sub(r"base64,[^\"]*", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|srcset", without_pictures)
    assert not re.search(r"#0\d0[a-b0-9]0b\b|#0[1-4]0[1-4]0[1-4]\b", text)  # every colour is a variable of the page
    styled = set(re.findall(r"var\((--[\w]+)\)", text))
    assert all(f"{variable}:" in text for variable in styled)


def test_every_picture_says_what_it_shows(default):
    page = Page(default)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    alts = [attributes["alt"] for attributes in images]
    assert alts[0] == "Query: person 5 in s1.jpg"
    assert alts[1] == "top-1 of PS-ARM: right, in s2.jpg, similarity 0.50"
    assert alts[3] == f"top-1 of {NAMES[1]}: wrong, in s2.jpg, similarity 0.50"
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(plots) == 4 and all(plot["role"] == "img" and plot["viewbox"] for plot in plots)
    assert "PS-ARM 50.1 % at 2.00 FPS" in plots[0]["aria-label"]


def test_right_and_wrong_differ_without_colour(default):
    page = Page(default)
    kinds = [attributes["class"] for _, attributes in page.tags if "crop " in attributes.get("class", "")]
    assert kinds == ["crop query", "crop right", "crop right", "crop wrong"]
    assert page.text.count("✓ top-") == 2 and page.text.count("✗ top-") == 1
    assert re.search(r"\.wrong img {[^}]*dashed", default)


def test_names_stand_as_they_are():
    page = Page(paper_page(report(4)))
    assert not [tag for tag, _ in page.tags if tag == "script"] and not page.attributes("onerror")
    for name in NAMES:
        assert page.text.count(name) >= 6


@pytest.mark.usefixtures("no_plots")
def test_published_figures_are_marked(default):
    page = Page(default)
    assert "published PS-ARM Table 1 of the paper mAP 95.2, top-1 96.1" in page.text
    assert "SeqNet (published, V100) 94.8 11.5" in page.text
    assert "Not comparable" not in page.text
    assert "Not comparable. Too few." in Page(paper_page(report(warning="Too few."))).text


@pytest.mark.usefixtures("no_plots")
def test_a_model_that_the_paper_does_not_have():
    own = result(0, variant="psarm", roi_size=(12, 4))  # on CUHK-SYSU the paper has no RoIs of this shape
    assert own.published is None and own.differences() == []
    assert "published no such row" in Page(paper_page(report(results=[own], examples=[]))).text


@pytest.mark.usefixtures("no_plots")
def test_data_of_one_gallery_says_why_a_plot_is_missing():
    facts = {**FACTS, "dataset": {**FACTS["dataset"], "name": "prw"}}
    page = Page(paper_page(report(dataset="prw", galleries=[], facts=facts)))
    assert "PRW has no such series" in page.text


def test_rows_of_the_paper():
    rows = published_rows("prw")
    match = matching_row(ModelConfig(variant="psarm", roi_size=(12, 4), backbone="resnet18"), rows)
    assert match.preset == "psarm_24x8_prw" and match.figures.mAP == 55.3 and match.source == "Section 4.2"
    assert match.differences(ModelConfig(roi_size=(24, 8))) == []
    assert match.differences(ModelConfig(roi_size=(12, 4), width=0.5)) == [
        "width 0.5, not width 1",
        "RoIs of 12x4, not RoIs of 24x8",
    ]
    assert matching_row(ModelConfig(variant="seqnet"), rows).figures.mAP == 47.6
    assert matching_row(ModelConfig(variant="seqnet"), published_rows("visits")) is None
    assert {row.preset for row in rows} >= {"nae_prw", "cascaded_psarm_prw"}
    assert not any("convnext" in row.preset for row in rows)


def test_which_data_compares():
    assert "8 frames and 4 queries" in not_comparable("prw", 8, 4)
    assert not_comparable("prw", 6112, 2057) == ""
    assert not_comparable("visits", 6112, 2057) == "Nothing is published on visits."


def test_disagreement_comes_first():
    right = np.zeros((2, 40), bool)
    right[0, [3, 17, 30]] = True
    right[:, 5] = True
    chosen = choose(right, 10, seed=0)
    assert set(chosen[:3]) == {3, 17, 30} and len(set(chosen)) == 10
    assert chosen == choose(right, 10, seed=0) != choose(right, 10, seed=1)
    assert sorted(choose(right, 100, seed=0)) == list(range(40))
    assert choose(right, 0, seed=0) == []


def test_crops_are_of_the_boxes(dataset):
    query = dataset.queries[0]
    count = len(dataset.queries)
    boxes = np.tile(np.array([10.0, 20.0, 30.0, 60.0]), (count, 2, 1))
    images = np.full((count, 2), 0)
    images[:, 1] = -1
    hits = QueryHits(images, boxes, np.full((count, 2), 0.25), np.ones((count, 2), bool))
    examples = make_examples(dataset, [hits], count, seed=0)
    first = next(example for example in examples if example.query == 0)
    assert first.person.frame == query.name and not first.disagreed
    [[hit]] = first.hits  # the second is nobody
    picture = cv2.imdecode(np.frombuffer(hit.person.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (40, 20, 3)
    whole = cv2.imread(str(dataset.gallery[0].path))
    assert np.abs(picture.astype(int) - whole[20:60, 10:30]).mean() < 12
    assert first.to_dict(["a"])["hits"]["a"][0]["box"] == [10, 20, 30, 60]


def test_the_table_on_the_terminal(capsys):
    print_paper(report(warning="[too] few"), Console(width=60))
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.strip().startswith("PS-ARM"))
    assert "95.2 / 96.1" in line and "50.0" in line and NAMES[1] in printed and "[too] few" in printed


def test_marks_of_many_checkpoints_differ():
    marks = [(mark["color"], mark["marker"]) for mark in map(charts._mark, range(56))]
    assert len(set(marks)) == 56


def test_the_speed_plot_says_what_is_with_cbgm(default):
    section = default.partition('<section id="speed"')[2].partition("</section>")[0]
    assert "mAP is with CBGM; frames a second are of finding the people of one image, without it" in section
    assert section.count("mAP with CBGM, %") == 2  # of the axis and of the table


def test_every_date_is_that_of_its_own_measurement(default):
    page = Page(default)
    assert "else was measured by psarm" in page.text and "in this run" not in page.text
    assert page.text.count("yesterday on CPU, 1 thread, a <cpu>, commit abc1234") == 2  # accuracy of both
    assert page.text.count("measured last week on CPU, 1 thread") == 1  # speed
    assert page.text.count(FACTS["date"]) == 2  # of the report: how it was measured, and the foot


@pytest.mark.usefixtures("no_plots")
def test_notes_on_published_figures_stand_only_beside_such(default):
    note = "SeqNet's published figures were measured with context matching"
    assert note in Page(default).text
    assert note not in Page(paper_page(report(dataset="visits"))).text
