import json

from click.testing import CliRunner

from psarm.benchmarks import annotation_cache
from psarm.benchmarks.annotation_cache import Size, write_cuhk_sysu, write_prw
from psarm.data.cuhk_sysu import read_cuhk_sysu
from psarm.data.prw import read_prw

SMALL = {
    "prw": Size(train=4, test=5, boxes=2.0, queries=3, identities=4),
    "cuhk-sysu": Size(train=80, test=120, boxes=2.0, queries=3, identities=4),
}


def test_data_sets_can_be_read(tmp_path):
    write_prw(tmp_path / "prw", SMALL["prw"])
    dataset = read_prw(tmp_path / "prw")
    assert (len(dataset.train), len(dataset.gallery), len(dataset.queries)) == (4, 5, 3)
    write_cuhk_sysu(tmp_path / "cuhk", SMALL["cuhk-sysu"])
    dataset = read_cuhk_sysu(tmp_path / "cuhk")
    assert (len(dataset.train), len(dataset.gallery), len(dataset.train_labels)) == (80, 120, 4)
    assert {name: [len(rows) for rows in lists] for name, lists in dataset.galleries.items()} == {
        "50": [50] * 3,
        "100": [100] * 3,
    }
    for query, rows in zip(dataset.queries, dataset.galleries["100"], strict=True):
        assert query.identity in dataset.gallery[rows[0]].identities


def test_report(tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_cache, "SIZES", {"prw": SMALL["prw"]})
    path = tmp_path / "report.json"
    result = CliRunner().invoke(annotation_cache.main, ["--repeats", "1", "--json", str(path)])
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    case = report["cases"]["prw"]
    assert case["files"] == 12 and case["cache_bytes"] > 0
    assert [len(case["readings"][which]) for which in ("first", "second")] == [1, 1]
    assert report["command"].startswith("python -m psarm.benchmarks.annotation_cache")
