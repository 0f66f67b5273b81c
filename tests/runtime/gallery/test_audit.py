"""Lines on searches, exports and erasures."""

import errno
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import writing_process as written
from writing_process import DIM, START, STEP, source_of

from psarm.errors import GalleryError, UsageError
from psarm.runtime.gallery.audit import AuditLog
from psarm.runtime.gallery.export import write_coco, write_mot, write_parquet
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import Where
from psarm.runtime.gallery.schema import visit_name
from psarm.runtime.gallery.search import SearchRequest


@pytest.fixture
def where(tmp_path):
    Gallery.create(tmp_path / "gallery", "fingerprint", DIM, "/bundle").close()
    return tmp_path / "gallery"


def test_names_of_any_bytes_are_written_down(tmp_path: Path) -> None:
    names = ["/pictures/\udcff.jpg", "/pictures/Jürgen\u2028.jpg"]
    log = AuditLog("/g", tmp_path, None)
    request = SearchRequest(np.ones(2, np.float32), where=Where(cameras=("\udcfe",)))
    with log.query("search", request, names) as counts:
        counts["hits"] = 3
    text = (tmp_path / "audit.jsonl").read_text(encoding="utf-8")
    assert text.count("\n") == 1 and "Jürgen" in text
    entry = json.loads(text)
    assert (entry["query"], entry["filters"], entry["hits"]) == (names, {"cameras": ["\udcfe"]}, 3)


def test_queries_are_written_down(where):
    written.write(where, 1)
    query = np.eye(DIM, dtype=np.float32)[0]
    with Gallery.open(where) as gallery:
        hits = gallery.search(query, top_k=4, query_names=["/pictures/ann.jpg"])
        gallery.search_frames(query, top_k=3, where=Where(cameras=("camera 1",), start=START))
        with pytest.raises(UsageError):
            gallery.search(query, where=Where(cameras=("nowhere",)))
        with pytest.raises(GalleryError, match="on object storage and keeps no audit log"):
            Gallery.create("memory://audit", "f", DIM, "/b").search(query)
    lines = [json.loads(line) for line in (where / "audit.jsonl").read_text().splitlines()]
    assert [line["what"] for line in lines] == ["search", "search_frames", "search"]
    assert [line["hits"] for line in lines] == [len(hits), 3, None]
    assert lines[0]["query"] == ["/pictures/ann.jpg"] and lines[0]["filters"] == {} and lines[0]["top_k"] == 4
    assert lines[1]["filters"] == {"cameras": ["camera 1"], "start": START.isoformat()}
    for line in lines:
        assert line["gallery"] == str(where) and datetime.fromisoformat(line["time"]).tzinfo and line["user"]
    assert (where / "audit.jsonl").stat().st_mode & 0o077 == 0


def test_exports_and_erasures_are_written_down(where, tmp_path):
    written.write(where, 2)
    moment = START + timedelta(microseconds=3 * STEP)
    with Gallery.open(where) as gallery:
        people = write_parquet(gallery, tmp_path / "a.parquet")
        write_coco(gallery, tmp_path / "a.json")
        write_mot(gallery, tmp_path / "mot")
        with pytest.raises(UsageError):
            write_mot(gallery, tmp_path / "mot")  # there already: nothing was tried
        purged = gallery.purge(moment)
        (visit, *_) = gallery.store.visits.search().where("source = 0").select(["visit"]).to_list()
        visits = gallery.delete_visits([visit["visit"]])
        source = gallery.delete_source(source_of(1).name)
        with pytest.raises(GalleryError, match="has no source"):
            gallery.delete_source("/nowhere")
    lines = [json.loads(line) for line in (where / "audit.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("gallery") == str(where) and datetime.fromisoformat(line.pop("time")) and line.pop("user")
    numbers = [line.pop("erasure", None) for line in lines]
    assert numbers[:3] == [None] * 3 and numbers[3::2] == numbers[4::2] and len(set(numbers)) == 5
    exports = [("parquet", "a.parquet"), ("coco", "a.json"), ("mot", "mot")]
    assert lines == [
        *({"what": f"export_{of}", "out": str(tmp_path / to), "filters": {}, "people": people} for of, to in exports),
        *erased("purge", {"older_than": moment.isoformat()}, purged),
        *erased("delete_visits", {"visits": [visit_name(visit["visit"])]}, visits),
        *erased("delete_source", {"source": source_of(1).name}, source),
        *erased("delete_source", {"source": "/nowhere"}, None),
    ]
    assert 0 < purged.people < people and visits.visits == 1 and source.people > 0


def erased(what, filters, removed):
    counts = {name: getattr(removed, name, None) for name in ("visits", "people")}  # None: it failed
    begun = {"what": what, "filters": filters}
    return begun, {**begun, **counts}


def test_what_cannot_be_written_down_is_not_done(where, tmp_path, monkeypatch):
    written.write(where, 1)
    with Gallery.open(where, audit_log=tmp_path) as gallery:
        refused = [
            lambda: write_coco(gallery, tmp_path / "a.json"),
            lambda: gallery.purge(datetime.now(UTC)),
            lambda: gallery.delete_source(source_of(1).name),
            lambda: gallery.delete_visits([0]),
        ]
        for refuse in refused:
            with pytest.raises(GalleryError, match=r"audit log .* cannot be written .*exports and erasures"):
                refuse()
        assert gallery.info().sources == 3
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)  # which shows only when it is there
    with Gallery.open(where) as gallery, pytest.raises(GalleryError, match="its disk is full"):
        write_coco(gallery, tmp_path / "a.json")

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with Gallery.open(where) as gallery, pytest.raises(GalleryError, match="No space left"):
        gallery.delete_source(source_of(1).name)
    assert written.check(where) == written.FRAMES * written.SOURCES
    assert (where / "audit.jsonl").read_text() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


KILLED = """
import os, signal, sys
from psarm.runtime.gallery import maintenance
from psarm.runtime.gallery.gallery import Gallery

def killed(store, name):
    delete(store, name)
    os.kill(os.getpid(), signal.SIGKILL)

delete, maintenance.delete_source = maintenance.delete_source, killed
Gallery.open(sys.argv[1]).delete_source(sys.argv[2])
"""


def test_an_erasure_that_is_killed_is_written_down(where):
    written.write(where, 1)
    name = source_of(1).name
    done = subprocess.run([sys.executable, "-c", KILLED, where, name], check=False)
    assert done.returncode == -signal.SIGKILL
    (line,) = map(json.loads, (where / "audit.jsonl").read_text().splitlines())
    assert (line["what"], line["filters"]) == ("delete_source", {"source": name}) and line["erasure"]
    assert "visits" not in line and "people" not in line
    with Gallery.open(where) as gallery:
        assert gallery.info().sources == 2


def test_half_a_line_does_not_stay(tmp_path, monkeypatch):
    log, write = AuditLog("/g", tmp_path, None), os.write
    request = SearchRequest(np.ones(2, np.float32))
    with log.query("search", request, ["before"]):
        pass
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
        with pytest.raises(GalleryError, match="disk is full"), log.query("search", request, ["half"]):
            pass
    with log.query("search", request, ["after"]):
        pass
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == [["before"], ["after"]]
