"""The nearest rows of a table against sorting all of them, and what is read for that."""

from typing import Any

import gallery_tables as gallery
import numpy as np
import pytest

from psarm.runtime.gallery import nearest as module
from psarm.runtime.gallery.nearest import SIMILARITY, nearest, similarity

ORDER = ("source", "first_frame", "visit")


class Watched:
    """A table that notes of how many rows which columns are taken."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.taken: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)

    def take_row_ids(self, rows: list[int]) -> Any:
        self.taken.append(len(rows))
        return self.table.take_row_ids(rows)


@pytest.mark.parametrize("batch", [3, 4096])
@pytest.mark.parametrize("few", [-1, 50_000], ids=["scanned", "read"])
@pytest.mark.parametrize("coarse", [False, True], ids=["random", "many equal"])
def test_thumbnails_are_read_of_the_rows_found_only(
    batch: int, few: int, coarse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", batch)
    monkeypatch.setattr(module, "FEW", few)
    made = gallery.tables(gallery.random_rows(3, frames=45, sources=9, coarse=coarse))
    made.visits.delete("source = 4")  # so that row ids are no places
    table = Watched(made.visits)
    query = np.full(8, 0.5, np.float32)
    rows = [row for row in made.visits.to_arrow().to_pylist() if row["source"] != 7]
    rows.sort(key=lambda row: (-np.float32(np.dot(row["embedding"], np.float64(query))), *(row[n] for n in ORDER)))
    for limit in (1, 5, 500):
        found = nearest(table, query, limit, ["visit", "thumbnail"], ORDER, "source != 7")  # type: ignore[arg-type]
        assert found["visit"].to_pylist() == [row["visit"] for row in rows[:limit]]
        assert found["thumbnail"].to_pylist() == [row["thumbnail"] for row in rows[:limit]]
        assert found["embedding"].to_pylist() == [row["embedding"] for row in rows[:limit]]
        np.testing.assert_array_equal(found[SIMILARITY], similarity(query, np.array(found["embedding"].to_pylist())))
    assert table.taken == [1, 5, len(rows)]


@pytest.mark.parametrize("few", [-1, 50_000], ids=["scanned", "read"])
def test_nobody_is_left(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW", few)
    made = gallery.tables(gallery.random_rows(3, frames=9))
    found = nearest(made.visits, np.ones(8, np.float32), 4, ["thumbnail"], ORDER, "false")
    assert len(found) == 0 and found.schema.names == ["thumbnail", "embedding", SIMILARITY]
