"""`psarm search --gallery` as a user meets it, on the toy bundle and a gallery of made people."""

import json
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import cv2
import gallery_filled as made
import numpy as np
import pytest
import toy_bundle as toy

from psarm.cli import run
from psarm.runtime import PersonSearch
from psarm.runtime.gallery.calibration import save_calibration
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.schema import visit_name

RED, ORANGE, PINK, BLUSH = (255, 0, 0), (255, 90, 0), (255, 0, 120), (255, 60, 60)


@pytest.fixture(autouse=True)
def _utc():
    """This machine's clock shows UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A bundle and a gallery of the people RED, ORANGE, PINK, BLUSH."""
    folder = tmp_path_factory.mktemp("place")
    bundle = toy.make_toy_bundle(folder / "toy.psarm")
    with PersonSearch(bundle, "onnxruntime", threads=1) as engine:
        vectors = [engine.embed(scene({0: colour}), [toy.cell_box(0)])[0] for colour in (RED, ORANGE, PINK, BLUSH)]
    made.fill(folder / "gallery", bundle, folder, vectors)
    return folder


def scene(people):
    return toy.draw_scene(people)


def draw(path, people):
    cv2.imwrite(str(path), scene(people))
    return path


def psarm(capfd, *arguments):
    code = run([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def search(capfd, gallery, *arguments):
    options = ["--gallery", gallery, "--json", "--backend", "onnxruntime", "--threads", 1]
    code, out, err = psarm(capfd, "search", *options, *arguments)
    return code, json.loads(out) if out else None, err


def test_visits(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    code, found, err = search(capfd, place / "gallery", "--query", query, "--top-k", 2)
    assert code == 0 and found["bundle"] == str(place / "toy.psarm") and found["search"] == "visits"
    first, second = found["hits"]
    assert (first["rank"], first["camera"], first["source"]) == (1, "door", str(place / "door.mp4"))
    assert first["similarity"] == pytest.approx(0.95, abs=0.02) and first["frames"] == 2
    assert (first["start"], first["end"]) == ("2026-03-01T12:00:00+00:00", "2026-03-01T12:00:00.500000+00:00")
    assert (first["start_s"], first["end_s"], first["best_frame"]) == (0.0, 0.5, made.FRAME_US)
    assert first["probably_not_a_match"] is None and "Not calibrated, so no hit is marked" in err
    assert first["similarity"] >= second["similarity"]
    assert (first["visit"], first["visit_name"]) == (0, "0-0") and second["visit_name"] == visit_name(second["visit"])
    assert found["queries"][0]["image"] == str(query)


def test_frames(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    code, found, _ = search(capfd, place / "gallery", "--query", query, "--frames", "--camera", "door")
    assert code == 0 and found["search"] == "frames" and len(found["hits"]) == 3
    assert {hit["frame"] for hit in found["hits"][:2]} == {0, made.FRAME_US}
    assert [hit["visit_name"] for hit in found["hits"]] == ["0-0", "0-0", "0-1"]
    assert found["hits"][0]["offset_s"] == 0.5 and found["hits"][0]["box"] == [10, 20, 30, 80]


def test_several_pictures_of_one_person(place, tmp_path, capfd):
    one, other = draw(tmp_path / "a.png", {5: RED}), draw(tmp_path / "b.png", {1: RED, 2: ORANGE})
    queries = ["--query", one, "--query", other]
    code, found, err = search(capfd, place / "gallery", *queries)
    assert code == 2 and found["query"] == str(other) and "shows 2 people" in err
    code, _, err = search(capfd, place / "gallery", *queries, "--person", 1)
    assert code == 2 and "1 --person came for 2 --query; give one for each, in their order." in err
    code, _, err = search(capfd, place / "gallery", *queries, "--person", 1, "--person", 1, "--save-people", "n.jpg")
    assert code == 2 and "--save-people draws one picture, and 2 --query came; leave it out." in err
    boxes = [",".join(map(str, toy.cell_box(cell))) for cell in (5, 1)]
    code, found, _ = search(capfd, place / "gallery", *queries, "--box", boxes[0], "--box", boxes[1])
    assert code == 0 and [query["image"] for query in found["queries"]] == [str(one), str(other)]
    assert found["hits"][0]["camera"] == "door"
    code, _, err = search(capfd, place / "gallery", *queries, "--box", boxes[0], "--box", boxes[1], "--cbgm")
    assert code == 2 and "--cbgm takes the people around one query" in err


def test_times(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    span = ["--from", "2026-03-01T13:00:00.4+01:00", "--to", "2026-03-01T12:00:01Z"]
    code, found, err = search(capfd, place / "gallery", "--query", query, *span)
    assert code == 0 and {hit["camera"] for hit in found["hits"]} == {"door"} and len(found["hits"]) == 2
    assert "Searching from 2026-03-01 12:00:00 to 2026-03-01 12:00:01 (UTC+00:00)." in err
    assert "Note: left out, since nobody knows when they were taken: 2 of 3 sources." in err
    code, found, _ = search(capfd, place / "gallery", "--query", query, "--last", "1h")
    recent = datetime.now(UTC) - timedelta(hours=1) < made.START
    assert code == 0 and bool(found["hits"]) == recent


def test_what_is_below_the_threshold_is_marked(place, tmp_path, capfd):
    query, page = draw(tmp_path / "query.png", {5: RED}), tmp_path / "page.html"
    gallery = shutil.copytree(place / "gallery", tmp_path / "calibrated")
    with Gallery.open(gallery) as opened:
        threshold = opened.calibrate(0.5).threshold
    code, found, err = search(capfd, gallery, "--query", query, "--html", page)
    marks = [hit["probably_not_a_match"] for hit in found["hits"]]
    assert code == 0 and marks == [hit["similarity"] < threshold for hit in found["hits"]] and len(set(marks)) == 2
    assert found["calibration"]["threshold"] == threshold and f"Hits below {threshold:.3f} are marked" in err
    assert page.read_text().count('<article class="unlikely">') == sum(marks)
    code, out, _ = psarm(capfd, "search", "--gallery", gallery, "--query", query, "--backend", "onnxruntime")
    assert code == 0 and out.count("probably not a match") == sum(marks)
    code, found, err = search(capfd, gallery, "--query", query, "--frames")
    assert code == 0 and {hit["probably_not_a_match"] for hit in found["hits"]} == {None}
    assert "Calibrations are of visits, and not of people in single frames: no hit is marked." in err


@pytest.mark.parametrize(("then", "said"), [(1, True), (4, True), (5, False), (6, False), (7, True)])
def test_a_calibration_of_fewer_or_more_visits_is_told_of(place, tmp_path, capfd, then, said):
    query, page = draw(tmp_path / "query.png", {5: RED}), tmp_path / "page.html"
    gallery = shutil.copytree(place / "gallery", tmp_path / "calibrated")
    with Gallery.open(gallery) as opened:
        save_calibration(opened.store.database, replace(opened.calibrate(0.5), visits=then))
    visits = "1 visit" if then == 1 else f"{then} visits"
    text = f"he gallery was calibrated when it had {visits}, and now has 5; calibrate again with: psarm gallery"
    _, _, err = search(capfd, gallery, "--query", query, "--html", page)
    assert (f"Note: T{text}" in err.replace("\n", " ")) == said and (f"<p>T{text}" in page.read_text()) == said
    assert "calibrate again" not in search(capfd, gallery, "--query", query, "--frames")[2]


def test_query_pictures_of_two_people_are_told_of(place, tmp_path, capfd):
    one, alike = (draw(tmp_path / name, {5: RED}) for name in ("a.png", "b.png"))
    other = draw(tmp_path / "c.png", {5: PINK})
    gallery = shutil.copytree(place / "gallery", tmp_path / "calibrated")
    pictures = ["--query", one, "--query", alike, "--query", other]
    assert "do not look like" not in search(capfd, gallery, *pictures)[2]
    with Gallery.open(gallery) as opened:
        save_calibration(opened.store.database, replace(opened.calibrate(0.5), threshold=0.99))
    for option in ([], ["--frames"]):
        code, _, err = search(capfd, gallery, *pictures, *option)
        assert code == 0 and f"Note: the query pictures do not look like one person: {one} and {other} have" in err
    assert "do not look like" not in search(capfd, gallery, *pictures[:4])[2]
    assert "do not look like" not in search(capfd, gallery, "--query", one)[2]


def test_cbgm_is_not_judged(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    code, found, err = search(capfd, place / "gallery", "--query", query, "--cbgm")
    assert code == 0 and found["cbgm"] and "--cbgm are not calibrated" in err


def test_frames_of_one_second_can_be_told_apart(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    options = ["--gallery", place / "gallery", "--backend", "onnxruntime", "--threads", 1, "--frames"]
    code, out, _ = psarm(capfd, "search", *options, "--query", query)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert code == 0 and [row[3] for row in rows if row[5] == "0-0"] == [
        "2026-03-01 12:00:00.5",
        "2026-03-01 12:00:00.0",
    ]
    assert {row[3] for row in rows if row[2] == "hall"} == {"00:00.0"}
    assert {row[3] for row in rows if row[2] == "stairs"} == {"picture 1", "picture 2"}


def test_a_table(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    options = ["--gallery", place / "gallery", "--backend", "onnxruntime", "--threads", 1]
    code, out, err = psarm(capfd, "search", *options, "--query", query)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert code == 0 and [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert rows[0][2:] == ["door", "2026-03-01 12:00:00", "0.5 s", "0-0", str(place / "door.mp4")]
    assert {row[5] for row in rows[1:]} == {"0-1", "1-0", "1-1", "2-0", "–"}
    where = {(row[2], row[3]) for row in rows}
    assert {("hall", "00:00"), ("stairs", "picture 1"), ("stairs", "picture 2")} <= where
    assert "Times are local (UTC+00:00)." in err


def test_nobody_was_found(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    options = ["--gallery", place / "gallery", "--backend", "onnxruntime", "--threads", 1, "--query", query]
    code, out, err = psarm(capfd, "search", *options, "--to", "2020-01-01")
    assert code == 0 and out == "Nobody was found.\n"
    assert "Without filters there are 5 visits, of door, hall, stairs, seen 2026-03-01 12:00:00" in err
    assert "; 3 visits of unknown time are left out by --from, --to and --last." in err
    code, out, err = psarm(capfd, "search", *options, "--min-score", 1)
    assert out == "Nobody was found.\n" and "5 visits" in err and "left out" not in err


def test_without_an_index_a_search_is_exact_and_says_so(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    for option, table in (("--top-k=9", "visits"), ("--frames", "people")):
        code, found, err = search(capfd, place / "gallery", "--query", query, "--approximate", option)
        assert code == 0 and not found["approximate"] and f"has no index of its {table}, so the search was exact" in err


def test_a_query_that_was_cut_out(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    height, width = scene({5: RED}).shape[:2]
    _, _, err = search(capfd, place / "gallery", "--query", query, "--box", f"0,0,{width},{0.9 * height}")
    assert f"fills 90% of the {width}x{height} picture" in err and "with --box or --person" in err
    assert "fills" not in search(capfd, place / "gallery", "--query", query)[2]


def test_the_page_without_the_sources(place, tmp_path, capfd):
    query, page = draw(tmp_path / "query.png", {5: RED}), tmp_path / "page.html"
    code, _, err = search(capfd, place / "gallery", "--query", query, "--html", page)
    text = page.read_text()
    assert code == 0 and f"Wrote {page}." in err
    assert "door.mp4 is not there any more" in text and "ffplay" not in text
    assert text.count("data:image/jpeg;base64,") == 2 + 5 and text.count("no picture") == 1  # thumbnails of visits
    head = text.partition("<header>")[2].partition("</header>")[0]
    assert "Person search in gallery: 6 hits" in head and "Searched: all of it." in head
    assert "Times are local (UTC+00:00)." in head and "Not calibrated" in head
    filters = ["--camera", "door", "--from", "2026-03-01T12:00", "--min-score", "0.5"]
    search(capfd, place / "gallery", "--query", query, "--html", page, *filters)
    assert "Searched: camera door, from 2026-03-01 12:00:00, detection score from 0.5." in page.read_text()


def test_the_bundle_is_the_gallerys_or_one_of_its_space(place, tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    moved = shutil.copytree(place / "toy.psarm", tmp_path / "moved.psarm")
    lost = tmp_path / "lost"
    with Gallery.open(place / "gallery") as gallery:
        Gallery.create(lost, gallery.facts.fingerprint, toy.DIM, str(tmp_path / "gone.psarm")).close()
    code, found, err = search(capfd, lost, "--query", query)
    assert code == 2 and found is None
    assert f"The bundle {tmp_path / 'gone.psarm'} that the gallery {lost} was made with is not there any more" in err
    code, found, _ = search(capfd, lost, moved, "--query", query)
    assert code == 0 and found["bundle"] == str(moved) and found["hits"] == []
    other = tmp_path / "other"
    Gallery.create(other, "f" * 64, toy.DIM, str(place / "toy.psarm")).close()
    code, _, err = search(capfd, other, "--query", query)
    assert code == 1 and "cannot be compared" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--camera", "attic"], 2, "attic"),
        (["--source", "attic.mp4"], 2, "has no source attic.mp4; psarm gallery sources"),
        (["--from", "yesterday"], 2, "is not a time; write it as 2026-03-01T14:30"),
        (["--last", "2 hours"], 2, "is not a length of time"),
        (["--last", "2h", "--from", "2026-03-01"], 2, "--last and --from both say where to begin"),
        (["--from", "2026-03-02", "--to", "2026-03-01"], 2, "before it"),
        (["--html", "{query}/page.html"], 2, "query.png is not a directory; give another place"),
        (["--save-people", "{query}/a/b.jpg"], 2, "b.jpg cannot be written"),
        (["--html", "{query}"], 2, "query.png would be overwritten by --html and is not a page; give another name."),
        (["--html", "{query}.mp4"], 2, "query.png.mp4 would be overwritten by --html and is not a page; give another"),
        (["--save-people", "{query}.mp4"], 2, "would be overwritten by --save-people and is not a JPEG; give another"),
        (["--query", "{query}.mp4"], 2, "is a video; give a picture, such as one frame"),
        (["--every", "2"], 2, "--every works with PATH only"),
        (["{query}", "{query}"], 2, "came beside --gallery"),
    ],
)
def test_bad_input_is_one_sentence(place, tmp_path, capfd, arguments, code, says):
    query = draw(tmp_path / "query.png", {5: RED})
    (tmp_path / "query.png.mp4").write_bytes(b"a film")
    before = query.read_bytes()
    filled = [argument.format(query=query) for argument in arguments]
    got, found, err = search(capfd, place / "gallery", *filled, "--query", query)
    assert got == code and found is None and says in err.replace("\n", " ")
    assert query.read_bytes() == before and (tmp_path / "query.png.mp4").read_bytes() == b"a film"


def test_no_gallery(tmp_path, capfd):
    query = draw(tmp_path / "query.png", {5: RED})
    code, _, err = search(capfd, tmp_path / "none", "--query", query)
    assert code == 2 and f"'{tmp_path / 'none'}' does not exist" in err.replace("\n", " ")


def test_the_query_is_written_down(place, tmp_path, capfd):
    query, log = draw(tmp_path / "query.png", {5: RED}), tmp_path / "log.jsonl"
    search(capfd, place / "gallery", "--query", query, "--camera", "door", "--audit-log", log)
    (entry,) = map(json.loads, log.read_text().splitlines())
    assert entry["query"] == [str(query)] and entry["filters"] == {"cameras": ["door"]} and entry["hits"] == 2


def test_the_weighted_similarity_is_that_of_a_search_in_files(place, tmp_path, capfd):
    """A row's similarity is the dot product with the weighted embedding, as `psarm.runtime.rank` has it."""
    query = draw(tmp_path / "query.png", {5: ORANGE})
    _, found, _ = search(capfd, place / "gallery", "--query", query, "--frames", "--top-k", 20)
    with PersonSearch(place / "toy.psarm", "onnxruntime", threads=1) as engine:
        vector = engine.embed(cv2.imread(str(query)), [found["queries"][0]["box"]])[0]
        vectors = [engine.embed(scene({0: c}), [toy.cell_box(0)])[0] for c in (RED, ORANGE, PINK, BLUSH)]
    people = [(0, 0.9), (0, 0.95), (1, 0.8), (0, 0.7), (2, 0.6), (3, 0.5), (2, 0.8)]
    expected = sorted((float(vectors[person] @ vector) * score for person, score in people), reverse=True)
    np.testing.assert_allclose([hit["similarity"] for hit in found["hits"]], expected, atol=1e-5)
