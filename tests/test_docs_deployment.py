"""What docs/deployment.md shows runs."""

from pathlib import Path

import cv2
import toy_bundle as toy
from documents import assert_commands_exist, assert_links_lead_somewhere, python_blocks

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "deployment.md").read_text(encoding="utf-8")
RED, ORANGE = (255, 0, 0), (255, 90, 0)


def test_an_application(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    toy.make_toy_bundle(Path("prw.psarm"))
    for name, cells in (("who", {0: RED}), ("street", {2: ORANGE}), ("hall", {5: RED})):
        cv2.imwrite(f"{name}.png", toy.draw_scene(cells))
    [code] = python_blocks(PAGE)
    exec(compile(code, "deployment.md", "exec"), {})
    found, refused = capfd.readouterr().out.splitlines()
    assert found.startswith("200 [('hall.png', 0.") and found.index("hall.png") < found.index("street.png")
    assert refused.startswith("400 ") and "nobody.png" in refused


def test_links_and_commands():
    assert_links_lead_somewhere(PAGE, DOCS)
    assert_commands_exist(PAGE)
