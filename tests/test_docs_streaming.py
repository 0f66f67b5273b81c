"""What docs/streaming.md shows runs."""

import json
import re
import shlex
from pathlib import Path

import toy_bundle as toy
from click.testing import CliRunner
from clips import write_video
from documents import assert_links_lead_somewhere, python_blocks

from psarm.benchmarks.streaming import main
from psarm.cli import run

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "streaming.md").read_text(encoding="utf-8")


def test_code_and_commands_run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    toy.make_toy_bundle(Path("prw.psarm"))
    for name in ("clip", "door", "hall"):
        write_video(Path(f"{name}.avi"), 5)
    alone, several = python_blocks(PAGE)
    exec(compile(alone, "streaming.md", "exec"), {})
    assert capfd.readouterr().out == "".join(f"clip.avi {number} {number / 10:.2f} s 0 people\n" for number in range(5))
    exec(compile(several, "streaming.md", "exec"), {})
    *lines, dropped = capfd.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"door", "hall"} and dropped.startswith("{'door': ")

    [detect] = re.findall(r"`psarm (detect .*?)`", PAGE)[-1:]
    assert run(shlex.split(detect)) == 0
    assert len([json.loads(line) for line in capfd.readouterr().out.splitlines()]) == 5
    [benchmark] = re.findall(r"^python -m psarm.benchmarks.streaming (.*)$", PAGE, re.MULTILINE)
    result = CliRunner().invoke(main, [*shlex.split(benchmark), "--rounds", "1", "--memory-frames", "80"])
    assert result.exit_code == 0, result.output
    assert_links_lead_somewhere(PAGE, DOCS)
