"""`psarm search` as a user meets it: through the command line, on the toy bundle."""

import json

import cv2
import pytest
import toy_bundle as toy

from psarm.cli import run

RED, ORANGE, PINK = (255, 0, 0), (255, 90, 0), (255, 0, 120)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


def draw(path, people):
    cv2.imwrite(str(path), toy.draw_scene(people))
    return path


@pytest.fixture
def gallery(tmp_path):
    folder = tmp_path / "gallery"
    folder.mkdir()
    draw(folder / "a.png", {0: RED, 3: PINK})
    draw(folder / "b.png", {})
    draw(folder / "c.png", {5: ORANGE, 7: RED})
    return folder


@pytest.fixture
def query(tmp_path):
    return draw(tmp_path / "query.png", {5: ORANGE})


def psarm(capfd, *arguments):
    code = run([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def search(capfd, bundle, *arguments):
    code, out, err = psarm(capfd, "search", bundle, "--json", "--threads", 1, *arguments)
    return code, json.loads(out) if out else None, err


def test_the_only_person_of_the_query_is_found(bundle, gallery, query, capfd):
    code, found, _ = search(capfd, bundle, "--query", query, gallery)
    assert code == 0 and found["query"]["image"] == str(query)
    assert (found["frames"], found["people"], found["backend"]) == (3, 4, "openvino")
    hits = found["hits"]
    assert hits[0]["image"] == str(gallery / "c.png") and hits[0]["similarity"] > 0.95
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4]
    assert [hit["similarity"] for hit in hits] == sorted((hit["similarity"] for hit in hits), reverse=True)
    assert abs(hits[0]["box"][0] - toy.cell_box(5)[0]) < 5


def test_a_box_chooses_the_person(bundle, gallery, tmp_path, capfd):
    crowd = draw(tmp_path / "crowd.png", {1: ORANGE, 2: RED})
    for cell, colour in ((1, "c.png"), (2, "a.png")):
        box = ",".join(f"{value:.1f}" for value in toy.cell_box(cell))
        code, found, _ = search(capfd, bundle, "--query", crowd, "--box", box, gallery, "--top-k", 1)
        assert code == 0 and len(found["hits"]) == 1
        assert found["query"]["box"] == pytest.approx(toy.cell_box(cell), abs=0.1)
        assert found["hits"][0]["image"].endswith(colour)


@pytest.mark.parametrize(("box", "noted"), [("-5,0,40,40", 1), ("100,40,161,97", 1), ("0,0,160,96", 0)])
def test_a_box_partly_outside_is_noted(bundle, gallery, query, capfd, box, noted):
    code, found, err = search(capfd, bundle, "--query", query, "--box", box, gallery)
    assert code == 0 and found["query"]["box"] == [float(value) for value in box.split(",")]
    assert err.splitlines().count(f"Note: the box {box} reaches outside the 160x96 picture {query}.") == noted


def test_several_people_are_listed_and_one_can_be_chosen(bundle, gallery, tmp_path, capfd):
    crowd = draw(tmp_path / "crowd.png", {1: ORANGE, 2: RED})
    code, out, err = psarm(capfd, "search", bundle, "--query", crowd, gallery)
    assert code == 2 and out == ""
    assert "shows 2 people (listed above); choose one with --person N or --box; --save-people PICTURE.jpg draws" in err
    rows = [line.split("│") for line in err.splitlines() if line.count("│") == 4]
    boxes = {row[1].strip(): row[2].strip() for row in rows}
    assert list(boxes) == ["1", "2"]
    code, found, _ = search(capfd, bundle, "--query", crowd, gallery, "--person", 2)
    assert code == 0
    assert [round(value) for value in found["query"]["box"]] == [int(value) for value in boxes["2"].split(",")]
    code, _, err = search(capfd, bundle, "--query", crowd, gallery, "--person", 3)
    assert code == 2 and "--person is 3, but people found" in err and "numbered 1 to 2" in err


def test_several_people_are_listed_as_json(bundle, gallery, tmp_path, capfd):
    crowd = draw(tmp_path / "crowd.png", {1: ORANGE, 2: RED})
    code, found, err = search(capfd, bundle, "--query", crowd, gallery)
    assert code == 2 and list(found) == ["query", "people"] and "│" not in err
    assert "shows 2 people (listed in the JSON); choose one with --person N or --box" in err
    assert [person["person"] for person in found["people"]] == [1, 2]
    _, out, _ = psarm(capfd, "detect", bundle, crowd, "--json", "--threads", 1)
    detected = json.loads(out)
    assert [person["box"] for person in found["people"]] == detected["boxes"]
    assert [person["score"] for person in found["people"]] == pytest.approx(detected["scores"], abs=1e-6)
    for person in found["people"]:
        _, chosen, _ = search(capfd, bundle, "--query", crowd, gallery, "--person", person["person"])
        assert chosen["query"]["box"] == person["box"]


def test_the_people_of_the_query_are_drawn_where_asked_for(bundle, gallery, tmp_path, capfd):
    crowd, drawn = draw(tmp_path / "crowd.png", {1: ORANGE, 2: RED}), tmp_path / "numbers" / "crowd.jpg"
    code, _, err = search(capfd, bundle, "--query", crowd, gallery, "--save-people", drawn)
    assert code == 2 and err.endswith(f"(listed in the JSON, drawn in {drawn}); choose one with --person N or --box.\n")
    picture, plain = cv2.imread(str(drawn)), cv2.imread(str(crowd))
    assert picture.shape == plain.shape and (abs(picture.astype(int) - plain) > 60).any()
    again = tmp_path / "again.jpg"
    code, _, err = search(capfd, bundle, "--query", crowd, gallery, "--person", 2, "--save-people", again)
    assert code == 0 and f"Wrote {again}." in err and again.read_bytes() == drawn.read_bytes()


def test_nobody_in_the_query(bundle, gallery, tmp_path, capfd):
    empty = draw(tmp_path / "empty.png", {})
    code, _, err = search(capfd, bundle, "--query", empty, gallery)
    assert code == 2 and "No person was found in the query" in err and "--box" in err


def test_the_query_picture_itself_is_left_out(bundle, gallery, capfd):
    box = ",".join(map(str, toy.cell_box(5)))
    code, found, _ = search(capfd, bundle, "--query", gallery / "c.png", "--box", box, gallery)
    assert code == 0 and found["frames"] == 2
    assert all(hit["image"] == str(gallery / "a.png") for hit in found["hits"])


def test_cbgm_uses_the_people_around(bundle, gallery, tmp_path, capfd):
    crowd = draw(tmp_path / "crowd.png", {1: ORANGE, 2: RED})
    box = ",".join(map(str, toy.cell_box(1)))
    _, plain, _ = search(capfd, bundle, "--query", crowd, "--box", box, gallery)
    code, found, _ = search(capfd, bundle, "--query", crowd, "--box", box, gallery, "--cbgm")
    assert code == 0 and found["cbgm"] and not plain["cbgm"]
    assert len(found["hits"]) == len(plain["hits"]) == 4
    assert {h["similarity"] for h in found["hits"]} != {h["similarity"] for h in plain["hits"]}


def test_cbgm_where_no_detection_is_sure_enough(bundle, gallery, query, capfd):
    box = ",".join(map(str, toy.cell_box(5)))
    code, found, _ = search(capfd, bundle, "--query", query, "--box", box, gallery, "--cbgm", "--conf", 1)
    assert code == 0 and found["hits"] == []


def test_a_table(bundle, gallery, query, capfd):
    code, out, _ = psarm(capfd, "search", bundle, "--query", query, gallery, "--top-k", 2)
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert len([row for row in rows if row.split("│")[1].strip() in {"1", "2"}]) == 2


def test_no_hits(bundle, query, tmp_path, capfd):
    empty = draw(tmp_path / "empty.png", {})
    code, out, _ = psarm(capfd, "search", bundle, "--query", query, empty, "--html", tmp_path / "page.html")
    assert code == 0 and "Nobody was found in the frame searched" in out
    assert "Nobody was found" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(("options", "cbgm"), [([], "no"), (["--cbgm"], "yes")])
def test_the_page(bundle, gallery, query, tmp_path, capfd, options, cbgm):
    page = tmp_path / "out" / "page.html"
    code, _, err = psarm(capfd, "search", bundle, "--query", query, gallery, "--html", page, *options)
    text = page.read_text()
    assert code == 0 and f"Wrote {page}." in err
    assert text.count("data:image/jpeg;base64,") == 2 * 5 and str(gallery / "c.png") in text
    assert f"cbgm: {cbgm} " in text.partition("<footer>")[2]
    assert text.count("detection score ") == 4
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_hits_in_a_video_are_shown(bundle, query, tmp_path, capfd):
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 96))
    for number in range(5):
        writer.write(toy.draw_scene({3: ORANGE} if number == 4 else {}))
    writer.release()
    page = tmp_path / "page.html"
    code, found, _ = search(capfd, bundle, "--query", query, clip, "--every", 2, "--html", page)
    assert code == 0 and [hit["image"] for hit in found["hits"]] == [f"{clip}#000004"]
    assert f"{clip}#000004" in page.read_text()


def test_a_bad_picture_among_many(bundle, gallery, query, capfd):
    (gallery / "b.png").write_bytes(b"")
    code, found, err = search(capfd, bundle, "--query", query, gallery)
    assert code == 1 and found["frames"] == 2 and len(found["hits"]) == 4
    assert "b.png is empty" in err and err.splitlines()[-1].startswith("Error: 1 of 3 files")


def test_bundle_comes_first(bundle, query, capfd):
    code, out, err = psarm(capfd, "search", query, "--query", query, bundle)
    assert (
        code == 2
        and out == ""
        and err == f"Error: BUNDLE comes first: {query} is no bundle and {bundle} is; swap them.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--query", "gone.jpg", "{gallery}"], 2, "Path 'gone.jpg' does not exist"),
        (["{gallery}"], 2, "Missing option '--query'"),
        (["--query", "{query}"], 2, "Missing argument 'PATH...' (or --gallery DIR to search in a gallery)"),
        (["--query", "{query}", "--query", "{query}", "{gallery}"], 2, "are for a --gallery; give one"),
        (["--query", "{query}", "{gallery}", "--person", "1", "--person", "2"], 2, "2 --person came for 1 --query"),
        (["--query", "{query}", "{gallery}", "--camera", "door"], 2, "--camera works with --gallery only"),
        (["--query", "{query}", "{gallery}", "--save-people", "{query}"], 2, "would be overwritten"),
        (["--query", "{query}", "{gallery}", "--save-people", "n", "--box", "9,9,50,60"], 2, "leave it out with --box"),
        (["--query", "{query}", "{gallery}", "--save-people", "n", "--html", "./n"], 2, "give them different names"),
        (["--query", "{query}", "{gallery}", "--html", "{query}"], 2, "overwritten by --html and is not a page"),
        (["--query", "{gallery}", "{gallery}"], 1, "is a folder; a picture file is needed"),
        (["--query", "{bad}", "{gallery}"], 1, "is damaged or not a picture"),
        (["--query", "{query}", "{gallery}", "--box", "1,2,3"], 2, "not of the form x1,y1,x2,y2"),
        (["--query", "{query}", "{gallery}", "--box", "a,b,c,d"], 2, "not of the form x1,y1,x2,y2"),
        (
            ["--query", "{query}", "{gallery}", "--box", "9,9,5,20"],
            2,
            "(not x,y,width,height) with x1 <= x2 and y1 <= y2, got [9.0, 9.0, 5.0, 20.0].",
        ),
        (["--query", "{query}", "{gallery}", "--box", "9,9,9,20"], 2, "The box is empty"),
        (
            ["--query", "{query}", "{gallery}", "--box", "500,500,600,600"],
            2,
            "The box [500.0, 500.0, 600.0, 600.0] lies outside the 160x96 picture",
        ),
        (["--query", "{query}", "{gallery}", "--box", "nan,1,2,3"], 2, "finite"),
        (["--query", "{query}", "{gallery}", "--box", "1,1,5,5", "--person", "1"], 2, "give one of them"),
        (["--query", "{query}", "{query}"], 2, "nothing is left to search"),
        (["--query", "{query}", "{gallery}", "--top-k", "0"], 2, "--top-k"),
    ],
)
def test_bad_input_is_one_sentence(bundle, gallery, query, tmp_path, capfd, arguments, code, says):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nothing")
    filled = [argument.format(gallery=gallery, query=query, bad=bad) for argument in arguments]
    got, found, err = search(capfd, bundle, *filled)
    assert got == code and found is None and says in err.replace("\n", " ")
