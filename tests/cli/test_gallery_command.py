"""`psarm gallery …` as a user meets it, on a gallery of made people."""

import io
import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gallery_filled as made
import pytest
import toy_bundle as toy
from rich.console import Console

from psarm.cli import run
from psarm.cli.gallery_hits import hit_visit
from psarm.cli.gallery_learning import index
from psarm.cli.gallery_sources import full_name
from psarm.errors import UsageError
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import Source


@pytest.fixture
def place(tmp_path):
    made.fill(tmp_path / "gallery", toy.make_toy_bundle(tmp_path / "toy.psarm"), tmp_path)
    return tmp_path


def psarm(capfd, command, *arguments):
    code = run(["gallery", *command.split(), *map(str, arguments)])
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_info(place, capfd):
    code, out, _ = psarm(capfd, "info", place / "gallery", "--json")
    found = json.loads(out)
    assert code == 0 and found["gallery"] == str(place / "gallery") and found["bundle"] == str(place / "toy.psarm")
    assert (found["sources"], found["people"], found["visits"]) == (3, 7, 5)
    assert found["cameras"] == ["door", "hall", "stairs"] and found["calibrated"] is None and found["indexed"] == []
    assert found["start"] == "2026-03-01T12:00:00+00:00" and found["bytes"] > 1000
    code, out, _ = psarm(capfd, "info", place / "gallery")
    assert code == 0 and "door, hall, stairs" in out and "none: searches are exact" in out


def test_sources(place, capfd):
    code, out, _ = psarm(capfd, "sources", place / "gallery", "--json")
    door, hall, stairs = json.loads(out)
    assert code == 0 and (door["indexed"], door["skipped"], door["to_do"], door["people"]) == (3, 1, 0, 3)
    assert door["reasons"] == {"damaged": 1} and door["settings"] == {"fps": 2.0} and door["finished"]
    assert (hall["to_do"], stairs["to_do"], stairs["kind"]) == (2, 0, "pictures")
    code, out, _ = psarm(capfd, "sources", place / "gallery")
    assert code == 0 and "1 damaged" in out and str(place / "hall.mp4") in out
    assert " found " in out  # not what is left after an erasure
    Gallery.create(place / "empty", "f" * 64, toy.DIM, "toy.psarm").close()
    assert psarm(capfd, "sources", place / "empty")[1] == "No source was indexed yet.\n"


def test_purge(place, capfd):
    made_ago = datetime.now(UTC) - made.START
    age = f"{made_ago / timedelta(days=1) - 1:.4f}d" if made_ago > timedelta(days=1) else "0s"
    code, out, _ = psarm(capfd, "purge --dry-run --json", place / "gallery", "--older-than", age)
    assert code == 0 and json.loads(out) == {"people": 3, "visits": 2, "index_dropped": []}
    code, _, err = psarm(capfd, "purge", place / "gallery", "--older-than", age)
    assert code == 2 and "Erase 2 visits and 3 people in frames seen before" in err and "add --yes" in err
    code, out, _ = psarm(capfd, "purge --yes", place / "gallery", "--older-than", age)
    assert code == 0 and out.startswith("2 visits and 3 people in frames erased, seen before ")
    code, out, _ = psarm(capfd, "info --json", place / "gallery")
    assert (json.loads(out)["people"], json.loads(out)["visits"]) == (4, 3)
    code, out, _ = psarm(capfd, "purge", place / "gallery", "--older-than", age)
    assert code == 0 and out.startswith("0 visits and 0 people")


def test_delete_source(place, capfd, monkeypatch):
    monkeypatch.chdir(place)
    code, _, err = psarm(capfd, "delete-source gallery attic.mp4 --yes")
    assert code == 2 and "has no source attic.mp4; psarm gallery sources" in err
    code, out, _ = psarm(capfd, "delete-source gallery hall.mp4 --yes --json")
    assert code == 0 and json.loads(out) == {"people": 2, "visits": 2, "index_dropped": []}
    code, out, _ = psarm(capfd, "sources gallery --json")
    assert [source["camera"] for source in json.loads(out)] == ["door", "stairs"]


def test_a_source_by_the_end_of_its_path(tmp_path):
    with Gallery.create(tmp_path / "gallery", "f" * 64, toy.DIM, "toy.psarm") as gallery:
        names = ["/a/door/clip.mp4", "/a/hall/clip.mp4", "/a/hall/stairs.mp4", "rtsp://host/clip.mp4/two"]
        with gallery.writer() as writer:
            for name in names:
                writer.add_source(Source(name, "c", "video", name))
        for given, full in (("stairs.mp4", names[2]), ("door/clip.mp4", names[0]), ("two", names[3]), (names[1],) * 2):
            assert full_name(gallery, given) == full
        with pytest.raises(UsageError, match=f"2 sources that end in clip.mp4: {names[0]}, {names[1]}; give more"):
            full_name(gallery, "clip.mp4")
        with pytest.raises(UsageError, match=r"has no source lip\.mp4"):
            full_name(gallery, "lip.mp4")


def test_delete_visit(place, capfd):
    with Gallery.open(place / "gallery") as gallery:
        hit = next(hit for hit in gallery.search(made.VECTORS[2]) if hit.camera == "hall" and hit.similarity > 0.5)
    name = hit_visit(hit)
    code, out, _ = psarm(capfd, "delete-visit --dry-run --json", place / "gallery", name, hit.visit, "0-0")
    assert code == 0 and json.loads(out) == {"people": 3, "visits": 2, "index_dropped": []}
    code, _, err = psarm(capfd, "delete-visit", place / "gallery", name)
    assert code == 2 and f"Erase 1 visit and 1 person in frames from {place / 'gallery'}?" in err and "--yes" in err
    code, _, err = psarm(capfd, "delete-visit --yes", place / "gallery", name, "1-9")
    assert code == 2 and "has no visit 1-9; psarm search --gallery says" in err and err.count("\n") == 1
    code, out, _ = psarm(capfd, "delete-visit --yes", place / "gallery", name)
    assert (code, out) == (0, "1 visit and 1 person in frames erased.\n")
    code, out, _ = psarm(capfd, "info --json", place / "gallery")
    assert (json.loads(out)["people"], json.loads(out)["visits"]) == (6, 4)


@pytest.mark.parametrize("visit", ["-1", "1-", "a", "1-99999999999", "9999999999-1", "99999999999999999999"])
def test_what_is_no_visit(tmp_path, capfd, visit):
    code, _, err = psarm(capfd, "delete-visit --yes", tmp_path, "--", visit)
    assert code == 2 and f"{visit!r} is no visit" in err


class Terminal(io.StringIO):
    """Where somebody types."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 130, 3), ("y\n", 0, 2)])
def test_erasing_asks_on_a_terminal(place, capfd, monkeypatch, answer, code, left):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    got, _, err = psarm(capfd, "delete-source", place / "gallery", place / "hall.mp4")
    assert got == code and f"Erase {place / 'hall.mp4'} with all that was found in it" in err
    with Gallery.open(place / "gallery") as gallery:
        assert len(gallery.sources()) == left


def test_compact(place, capfd):
    code, out, _ = psarm(capfd, "compact --json", place / "gallery")
    found = json.loads(out)
    assert code == 0 and found["bytes_after"] > 0 and found["bytes_before"] > 0
    assert psarm(capfd, "compact", place / "gallery")[1].startswith("Compacted: ")


@pytest.mark.parametrize(("after", "grown"), [(9_000, True), (5_000, False)])
def test_a_compaction_says_why_a_gallery_grew(place, capfd, monkeypatch, after, grown):
    sizes = iter((7_000, after))
    monkeypatch.setattr("psarm.runtime.gallery.maintenance.disk_bytes", lambda store: next(sizes))
    code, out, _ = psarm(capfd, "compact", place / "gallery")
    assert code == 0 and ("kept for an hour" in out) == grown


@pytest.mark.parametrize("command", ["delete-source --yes", "purge --older-than 1s --yes", "export --format coco"])
def test_no_line_is_added_to_what_is_no_audit_log(place, tmp_path, capfd, command):
    video = tmp_path / "door.mp4"
    video.write_bytes(b"\0\0\0\x20ftypisom")
    name = {"delete-source": ["hall.mp4"], "export": [tmp_path / "a.json"]}.get(command.split()[0], [])
    code, out, err = psarm(capfd, command, place / "gallery", *name, "--audit-log", video)
    assert code == 2 and out == "" and err.startswith(f"Error: {video} is no audit log") and err.count("\n") == 1
    assert video.read_bytes() == b"\0\0\0\x20ftypisom" and not (tmp_path / "a.json").exists()
    with Gallery.open(place / "gallery") as gallery:
        assert len(gallery.sources()) == 3 and gallery.info().people > 0


def test_exports(place, capfd):
    for layout, name, count in (
        ("parquet", "a.parquet", "7 people"),
        ("coco", "a.json", "7 people"),
        ("mot", "a", "3"),
    ):
        code, out, _ = psarm(capfd, f"export --format {layout}", place / "gallery", place / name)
        assert code == 0 and f": {count}" in out and (place / name).exists()
    code, out, _ = psarm(capfd, "export --format mot --json", place / "gallery", place / "b")
    assert code == 0 and list(json.loads(out)["files"]) == [
        str(place / n) for n in ("door.mp4", "hall.mp4", "pictures")
    ]
    code, _, err = psarm(capfd, "export --format coco", place / "gallery", place / "b")
    assert code == 2 and "is a directory; coco is one file" in err
    code, _, err = psarm(capfd, "export --format coco --rate 5", place / "gallery", place / "c.json")
    assert code == 2 and "--rate is of mot files" in err
    code, _, err = psarm(capfd, "export --format coco", place / "gallery", place / "a.parquet")
    assert code == 2 and "a.parquet exists already; replace it with --overwrite" in err
    assert psarm(capfd, "export --format coco --overwrite", place / "gallery", place / "a.parquet")[0] == 0
    assert json.loads((place / "a.parquet").read_text())["categories"]
    code, _, err = psarm(capfd, "export --format mot --overwrite", place / "gallery", place / "c")
    assert code == 2 and "mot is a new directory" in err


def test_calibrate(place, capfd):
    code, out, err = psarm(capfd, "calibrate", place / "gallery")
    assert code == 1 and out == "" and "index more, or give a larger rate" in err
    code, out, _ = psarm(capfd, "calibrate --fmr 0.5 --json", place / "gallery")
    found = json.loads(out)
    assert code == 0 and found["target"] == 0.5 and found["visits"] == 5 and not found["certain"]
    rates = [rate["false_match_rate"] for rate in found["rates"]]
    assert rates == sorted(rates, reverse=True)
    code, out, _ = psarm(capfd, "calibrate --fmr 0.5", place / "gallery")
    assert code == 0 and f"Hits below {found['threshold']:.3f} are marked as probably not a match" in out
    recorded = json.loads(psarm(capfd, "info --json", place / "gallery")[1])
    assert recorded["calibrated"] is not None and recorded["calibration"]["threshold"] == found["threshold"]
    rate, bound = (f"{recorded['calibration'][name]:.3%}" for name in ("false_match_rate", "bound"))
    assert f"From there on {rate} (at most {bound}, 95 % sure) of other people" in " ".join(out.split())
    text = " ".join(psarm(capfd, "info", place / "gallery")[1].split())
    assert f": from {found['threshold']:.3f} on {rate} (at most {bound}, 95 % sure) of other people" in text


def test_audit(place, capfd):
    assert psarm(capfd, "audit", place / "gallery")[1] == "Nobody has searched, exported or erased anything yet.\n"
    with Gallery.open(place / "gallery") as gallery:
        gallery.search(made.VECTORS[0], query_names=["wanted.jpg", "\udcff\u2028.jpg"])
    code, out, _ = psarm(capfd, "audit --json", place / "gallery")
    (entry,) = map(json.loads, out.splitlines())
    assert code == 0 and entry["query"] == ["wanted.jpg", "\udcff\u2028.jpg"] and entry["hits"] == 6
    code, out, _ = psarm(capfd, "audit", place / "gallery")
    assert code == 0 and "wanted.jpg" in out and "\\udcff" in out
    with (place / "gallery" / "audit.jsonl").open("a") as log:
        log.write("{half")
    code, _, err = psarm(capfd, "audit", place / "gallery")
    assert code == 1 and "Line 2 of" in err


def test_the_audit_log_of_a_gallery_that_is_gone_is_read(place, capfd):
    with Gallery.open(place / "gallery", place / "log.jsonl") as gallery:
        gallery.search(made.VECTORS[0])
    shutil.rmtree(place / "gallery")
    log = ("--audit-log", place / "log.jsonl")
    for arguments in ((place / "gallery", *log), (*log, place / "gallery")):
        code, out, _ = psarm(capfd, "audit --json", *arguments)
        assert code == 0 and json.loads(out)["gallery"] == str(place / "gallery")


def test_the_help_of_an_index_says_what_the_documentation_does():
    words = (Path(__file__).parents[2] / "docs" / "gallery.md").read_text().replace("`", "").split()
    (kind,) = (option for option in index.params if option.name == "kind")
    assert kind.help in " ".join(words)


def test_what_takes_long_is_said_on_a_terminal(place, monkeypatch, capfd):
    def build_index(gallery, kind, queries, on_step):
        on_step("Building the index of 9 people")
        return []

    monkeypatch.setattr(Gallery, "build_index", build_index)
    for terminal in (True, False):
        shown = io.StringIO()
        monkeypatch.setattr("psarm.console.err", Console(file=shown, force_terminal=terminal, width=80))
        assert psarm(capfd, "index --json", place / "gallery")[:2] == (0, "[]\n")
        assert ("Building the index of 9 people" in shown.getvalue()) == terminal


def test_exports_and_erasures_are_in_the_audit_log(place, tmp_path, capfd):
    gallery, log = place / "gallery", tmp_path / "log.jsonl"
    assert psarm(capfd, "export --format coco", gallery, tmp_path / "a.json", "--audit-log", log)[0] == 0
    assert psarm(capfd, "delete-visit --yes", gallery, "0-1", "--audit-log", log)[0] == 0
    assert psarm(capfd, "delete-source --yes", gallery, "hall.mp4", "--audit-log", log)[0] == 0
    assert psarm(capfd, "purge --older-than 1s --dry-run", gallery, "--audit-log", log)[0] == 0
    assert psarm(capfd, "purge --older-than 1s --yes", gallery, "--audit-log", log)[0] == 0
    assert not (gallery / "audit.jsonl").exists()
    code, out, _ = psarm(capfd, "audit --json", gallery, "--audit-log", log)
    entries = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [entry["what"] for entry in entries] == [
        *("export_coco", *("delete_visits",) * 2, *("delete_source",) * 2, *("purge",) * 2)
    ]
    code, out, _ = psarm(capfd, "audit", gallery, "--audit-log", log)
    text = " ".join(out.split())
    assert code == 0 and f"export_coco │ {tmp_path / 'a.json'} │ │ 7 people" in text
    assert "delete_visits │ │ visits 0-1 │ 1 visits, 1 people" in text and "source " + str(place / "hall.mp4") in text
    assert text.count("delete_visits") == 1 and "not finished" not in text
    log.write_text("".join(json.dumps(entry) + "\n" for entry in entries[:-1]))  # killed
    code, out, _ = psarm(capfd, "audit", gallery, "--audit-log", log)
    assert code == 0 and out.count("purge") == out.count("not finished") == 1


COUNTLESS = {"time": "2026-03-01", "user": "u", "what": "search", "query": [], "filters": {}}
TIMELESS = {**COUNTLESS, "time": 1, "hits": 1}


@pytest.mark.parametrize(
    "line", [b"5", b"\xff", b"", b"[]", b"{}", json.dumps(COUNTLESS).encode(), json.dumps(TIMELESS).encode()]
)
def test_a_damaged_line_of_the_audit_log_is_named(place, tmp_path, capfd, line):
    log = tmp_path / "log.jsonl"
    log.write_bytes(line + b"\n")
    code, out, err = psarm(capfd, "audit", place / "gallery", "--audit-log", log)
    assert code == 1 and out == "" and err.startswith(f"Error: Line 1 of {log} is none of an audit log")


@pytest.mark.parametrize("command", ["info", "sources", "compact", "calibrate", "index", "audit"])
def test_no_gallery(tmp_path, capfd, command):
    code, out, err = psarm(capfd, command, tmp_path / "none")
    assert code == 2 and out == "" and f"Directory '{tmp_path / 'none'}' does not exist" in err
