"""The runtime runs where importing torch is impossible, and importing it is all it takes to know."""

import subprocess
import sys

import cv2
import toy_bundle as toy

SCRIPT = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "onnx", "PIL"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, NoTorch())
from psarm.runtime import PersonSearch, rank, read_image

early = {"scipy", "onnxruntime", "openvino", "rich", "click"} & set(sys.modules)
assert not early, f"import psarm.runtime loads {early} before it is needed"
bundle, path = sys.argv[1:]
with PersonSearch(bundle, threads=1) as engine:
    image = read_image(path)
    people = engine.detect(image)
    query = engine.embed(image, people.boxes[:1])[0]
    context = engine.detect_around(image, people.boxes[0])
    hits = rank(query, engine.detect([image, image]), 3, context)
    print(len(people), len(hits), hits[0].index)
assert "torch" not in sys.modules
"""


def test_person_search_without_torch(tmp_path):
    bundle = toy.make_toy_bundle(tmp_path / "toy.psarm")
    cv2.imwrite(str(tmp_path / "frame.png"), toy.draw_scene({1: (255, 0, 0), 6: (255, 90, 0)}))
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bundle), str(tmp_path / "frame.png")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.stdout.split() == ["2", "3", "0"], result.stderr
