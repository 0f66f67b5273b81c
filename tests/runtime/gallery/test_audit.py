"""Lines on queries."""

import json
from pathlib import Path

import numpy as np

from psarm.runtime.gallery.audit import AuditLog
from psarm.runtime.gallery.records import Where
from psarm.runtime.gallery.search import SearchRequest


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
