"""The GPU suite on a CPU: how it keeps its journal and judges, and the rows of a tiny model."""

import io
import json
import math
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from psarm.benchmarks.gpu import __main__ as entry
from psarm.benchmarks.gpu import command, steps
from psarm.benchmarks.gpu.contenders import rewrites
from psarm.benchmarks.gpu.journal import Journal, deadline, is_right
from psarm.benchmarks.gpu.measure import count_macs, take_turns
from psarm.benchmarks.gpu.network import decibels
from psarm.benchmarks.gpu.steps import DeviceLostError, Suite
from psarm.benchmarks.gpu.table import goals, print_report
from psarm.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def journal(tmp_path):
    return Journal({"tiny": True, "device": "CPU", "date": "today", "commit": None}, tmp_path / "gpu.json", 100)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A tiny suite after its first steps."""
    folder = tmp_path_factory.mktemp("gpu")
    facts = {"tiny": True, "device": "CPU", "date": "today", "commit": None}
    suite = Suite(Journal(facts, folder / "gpu.json", 1000), CPU, True, 1, folder, folder / "none.safetensors")
    for title in ("_make_subject", "_ceilings", "_batch_one", "_end_to_end", "_stages", "_profile", "_accuracy"):
        suite.journal.step(title, 0, getattr(suite, title))
    return suite


def test_every_rewrite_is_right_and_every_row_has_its_times(measured):
    rows = [row for row in measured.journal.rows if row["group"] == "batch 1"]
    assert len(rows) == 6
    failed = [row for row in rows if "failure" in row]
    assert [row["name"] for row in failed] == ["literal eager, all in 16 bits"]  # a CPU has no such NMS
    for row in rows:
        if row in failed:
            continue
        assert row["ms_best"] <= row["ms"] <= row["ms_worst"] and row["batch"] == 1
        assert row["frames_per_second"] == pytest.approx(1000 / row["ms"])
        if row["name"].startswith("rewrites"):
            assert 25 < row["features_db"] < 70 and 25 < row["embeddings_db"] < 70 and is_right(row)
            assert row["stages_ms"].keys() == {"detect", "reid"}
            assert row.get("exact", False) == ("graphs" in row["name"])
        else:
            assert row["people_found"] > 0


def test_engines_are_timed_to_detections(measured):
    rows = [row for row in measured.journal.rows if row["group"] == "end to end"]
    assert [row["batch"] for row in rows] == [1, 1, 1, 1, 2]
    engines = [row for row in rows if row["name"].startswith("engine")]
    assert all(row["people_found"] > 0 and row["warnings"] == [] for row in engines)
    assert rows[-1]["frames_per_second"] == pytest.approx(2000 / rows[-1]["ms"])


def test_stages_cover_the_network_and_its_work(measured):
    parts = measured.journal.report["stages, batch 1"]["parts"]
    work = measured.journal.report["work_macs"]
    whole = sum(parts[name]["gmacs"] for name in ("backbone", "reductions", "rpn head", "detection head"))
    assert whole == pytest.approx(work["detect"] / 1e9)
    reid = parts["reid"]["gmacs"] * 1e9
    assert reid == pytest.approx(measured.people * work["reid_person"])
    assert parts["detection res5"]["ms"] < parts["detection head"]["ms"]
    kernels = measured.journal.report["profile"]["kernels"]
    assert kernels[0]["us"] >= kernels[-1]["us"] > 0 and sum(row["share"] for row in kernels) <= 1.001


def test_a_step_that_fails_is_a_row(measured):
    [row] = [row for row in measured.journal.rows if row["name"] == "_accuracy"]
    assert row["failure"].startswith("UsageError: There is no checkpoint") and "steps.py" in row["traceback"]


def test_the_report_prints(measured):
    report = {**measured.journal.report, "goals": goals(measured.journal.report)}
    text = io.StringIO()
    print_report(report, Console(file=text, width=300))
    for words in ("rewrites CUDA graphs", "literal eager", "There is no checkpoint", "stages, batch 1", "≤ 2.2 ms"):
        assert words in text.getvalue()


def test_the_command_itself(tmp_path):
    """What `make gpu` runs, on a CPU; its budget ends what compiles for minutes there."""
    path = tmp_path / "gpu.json"
    words = ["--tiny", "--device", "cpu", "--rounds", "1", "--budget", "45", "--profile", "--json", str(path)]
    done = subprocess.run([sys.executable, "-m", "psarm.benchmarks.gpu", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in report["rows"] if row["group"] == "batch 1"}
    assert rows["rewrites CUDA graphs"]["ms"] > 0 and rows["literal eager"]["ms"] > 0
    assert report["tiny"] and report["goals"] and f"Written to {path}" in done.stderr.replace("\n", "")
    assert "rewrites CUDA graphs" in done.stdout


def test_the_best_is_the_fastest_that_is_right(measured, tmp_path):
    suite = Suite(Journal({}, tmp_path / "gpu.json", 9), CPU, True, 1, tmp_path, tmp_path)
    suite.people = 3
    row = {"group": "batch 1", "precision": "bf16", "batch": 1, "people": 3, "features_db": 50, "embeddings_db": 40}
    for name, ms, changes in (
        ("a", 3.0, {}),
        ("b", 2.0, {}),
        ("c, compiled", 1.5, {}),
        ("d", 1.0, {"features_db": 4.0}),
        ("e", 0.5, {"people": 9}),
        ("f", 0.4, {"failure": "none"}),
    ):
        suite._made[f"rewrites {name}"] = rewrites(name, "bf16")
        times = {} if "failure" in changes else {"ms": ms}
        suite.journal.add({**row, "name": f"rewrites {name}", **times, **changes})
    assert suite._best().name == "rewrites c, compiled" and suite._best(compiled=False).name == "rewrites b"


def test_the_journal_is_on_the_disk_at_once_and_goes_on(journal):
    journal.add({"name": "one", "value": math.nan, "inner": [{"value": math.inf}]})
    journal.step("first", 0, lambda: None)
    stored = json.loads(journal.path.read_text())
    assert stored["rows"] == [{"name": "one", "value": None, "inner": [{"value": None}]}]
    journal.report["seconds"] = 40.0
    journal._spent = 40.0
    journal.write()
    ran = []
    later = Journal({}, journal.path, 100, resume=True)
    later.step("first", 0, lambda: ran.append("first"))
    later.step("second", 0, lambda: ran.append("second"))
    assert ran == ["second"] and len(later.rows) == 1 and 55 < later.left <= 60


def test_what_does_not_fit_is_named(journal):
    journal.step("long", 101, lambda: pytest.fail("there was no time for it"))
    [left] = journal.report["skipped"]
    assert left["what"] == "long" and left["needs_seconds"] == 101


def test_what_outlasts_the_budget_is_ended(journal):
    with deadline(0.05):
        journal.step("slow", 0, lambda: time.sleep(60))
    [row] = journal.rows
    assert row["failure"].startswith("OutOfTimeError") and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    journal.step("next", 0, lambda: None)
    assert journal.report["done"] == ["slow", "next"]


def test_an_interruption_is_no_row(journal):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal.step("it", 0, interrupt)
    assert journal.rows == []


@pytest.mark.parametrize("fast", [True, False])
def test_goals_are_judged_by_the_best_rows(fast):
    one = {"precision": "fp16", "batch": 1, "people": 20}
    rows = [
        {**one, "group": "batch 1", "name": "literal eager, autocast", "ms": 9.0, "frames_per_second": 111.0},
        {**one, "group": "batch 1", "name": "literal eager", "precision": "fp32", "ms": 1.0, "frames_per_second": 9.0},
        {**one, "group": "batch 1", "name": "rewrites a", "ms": 2.0 if fast else 3.0, "frames_per_second": 500.0},
        {**one, "group": "batch 8", "name": "rewrites a", "batch": 8, "ms": 1.0, "frames_per_second": 400.0},
        {**one, "group": "batch 1", "name": "rewrites b", "failure": "no"},
        {
            **one,
            "group": "batch 1",
            "name": "rewrites, wrong",
            "ms": 0.1,
            "frames_per_second": 9e3,
            "embeddings_db": 3.0,
        },
        {**one, "group": "end to end", "name": "engine, graphs", "ms": 4.5, "frames_per_second": 222.0},
    ]
    judged = goals({"rows": rows, "tiny": False, "subject": {"people": 20}})
    assert [goal["reached"] for goal in judged] == [fast, True, False, fast]
    assert judged[3]["value"] == pytest.approx(4.5 if fast else 3.0)
    assert {goal["reached"] for goal in goals({"rows": rows, "tiny": True})} == {None}


def test_wrong_answers_are_told_from_rough_ones():
    signal = torch.ones(4, 8)
    assert decibels(signal, signal) is None
    assert decibels(signal + 0.1, signal) == pytest.approx(20)
    assert decibels(signal * math.nan, signal) == -100
    assert not is_right({"ms": 1, "features_db": 50, "embeddings_db": 3}) and not is_right({"features_db": 50})
    assert is_right({"ms": 1, "features_db": None, "embeddings_db": 20})


def test_functions_take_turns():
    calls = []
    times = take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, CPU, 2)
    assert times.keys() == {"a", "b"} and times["a"].samples == 2
    assert "".join(calls).replace("aa", "a").count("ab") >= 1
    assert count_macs(torch.matmul, torch.ones(3, 4), torch.ones(4, 5)) == 60


def test_a_lost_gpu_is_left_to_another_process(journal, monkeypatch):
    started = []

    def run(words, **_):
        started.append(words)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(command.sys, "argv", ["gpu", "--device", "cuda"])
    journal.step("kernels", 0, lambda: None)
    with pytest.raises(SystemExit) as left:
        command._go_on_in_another_process(journal)
    assert left.value.code == 0
    assert started[0][1:] == ["-m", "psarm.benchmarks.gpu", "--device", "cuda", "--resume", "--json", str(journal.path)]


def lose_after(monkeypatch, body, checks):
    """Let the suite do `body` in place of every step, and the GPU be lost once it was checked `checks` times."""
    checked = []

    def check(_):
        checked.append(1)
        if len(checked) > checks:
            raise DeviceLostError("an illegal memory access")

    names = [name for name in vars(Suite) if name.startswith("_") and not name.startswith("__")]
    for name in set(names) - {"_candidates", "_best", "_engines"}:
        monkeypatch.setattr(Suite, name, body)
    monkeypatch.setattr(steps, "check_device", check)
    return checked


def test_the_device_is_checked_only_after_steps_that_ran(journal, tmp_path, monkeypatch):
    ran = []
    checked = lose_after(monkeypatch, lambda _: ran.append(1), 99)
    journal.report["done"] += ["ceilings", "batch 1", "many people"]
    Suite(journal, CPU, True, 1, tmp_path, tmp_path).run(profile=False)
    assert len(checked) == len(ran) == 12


@pytest.mark.parametrize(("checks", "goes_on"), [(0, False), (1, True)])
def test_a_gpu_that_stays_lost_ends_the_suite(journal, monkeypatch, checks, goes_on):
    started = []
    monkeypatch.setattr(subprocess, "run", lambda words, **_: started.append(words) or SimpleNamespace(returncode=0))
    monkeypatch.setattr(command, "print_report", lambda *_: None)
    lose_after(monkeypatch, lambda _: None, checks)
    journal.put("done", ["model and frame", "ceilings"])
    options = ["--device", "cpu", "--tiny", "--resume", "--json", str(journal.path)]
    result = CliRunner().invoke(command.main, options)
    report = json.loads(journal.path.read_text())
    [row] = report["rows"]
    assert "illegal memory access" in row["failure"] and bool(started) == goes_on
    assert row["name"] == ("batch 1" if goes_on else "a new process")
    if goes_on:
        assert result.exit_code == 0 and report["done"][-1] == "batch 1"
    else:
        assert "fails in a new process too" in str(result.exception) and "goals" in report


def test_a_gpu_that_fails_is_noticed(monkeypatch):
    def fail():
        raise RuntimeError("CUDA error: an illegal memory access")

    steps.check_device(CPU)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    steps.check_device(torch.device("cuda"))
    for broken in ("empty_cache", "synchronize"):
        monkeypatch.setattr(torch.cuda, broken, fail)
        with pytest.raises(DeviceLostError, match="illegal"):
            steps.check_device(torch.device("cuda"))


def test_another_process_knows_what_was_measured(tmp_path):
    row = {"group": "kernels", "name": "rewrites CUDA graphs, kernels", "batch": 1, "people": 20, "ms": 1.0}
    first = Journal({}, tmp_path / "gpu.json", 9)
    first.add(row)
    first.put("ceiling", {"tera_macs": {"bf16": 3.0}})
    later = Suite(Journal({}, first.path, 9, resume=True), CPU, True, 1, tmp_path, tmp_path)
    later.people = 20
    assert later._best().name == row["name"] and later.bench.ceilings == {"bf16": 3.0}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    result = CliRunner().invoke(command.main, [])
    assert isinstance(result.exception, UsageError) and "sees no NVIDIA GPU" in str(result.exception)


def test_missing_packages_are_named(monkeypatch):
    assert entry.missing() == []
    monkeypatch.setattr(entry.importlib.util, "find_spec", lambda name: None if name in ("rich", "cv2") else name)
    assert entry.missing() == ["opencv-python-headless", "rich"]
