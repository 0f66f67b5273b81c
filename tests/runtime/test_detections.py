import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from psarm.errors import UsageError
from psarm.runtime import Detections


def people(count=5, dim=3):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 100, (count, 2, 2)), axis=1)
    return Detections(corners.reshape(count, 4), rng.random(count), rng.standard_normal((count, dim)))


def test_arrays_become_float32():
    found = people()
    assert {found.boxes.dtype, found.scores.dtype, found.embeddings.dtype} == {np.dtype(np.float32)}
    assert len(found) == 5


def test_it_is_a_list_of_people():
    found = people()
    listed = list(found)
    assert len(listed) == 5
    for index in (0, 3, -1, np.int64(2)):
        person = found[index]
        np.testing.assert_array_equal(person.box, found.boxes[index])
        np.testing.assert_array_equal(person.embedding, listed[index].embedding)
        assert isinstance(person.score, float) and person.score == found.scores[index]
    with pytest.raises(IndexError):
        found[5]


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 4),
        slice(None, None, -1),
        slice(9, None),
        [3, 0],
        [],
        np.array([2, 2]),
        [True, False, True, False, False],
        np.array([False] * 5),
    ],
)
def test_slices_masks_and_indices_give_detections(index):
    found = people()
    rows = np.arange(5)[np.asarray(index, int) if isinstance(index, list) and not index else index]
    part = found[index]
    assert isinstance(part, Detections) and len(part) == len(rows)
    np.testing.assert_array_equal(part.boxes, found.boxes[rows])
    np.testing.assert_array_equal(part.scores, found.scores[rows])
    np.testing.assert_array_equal(part.embeddings, found.embeddings[rows])


def test_its_text_is_short():
    assert repr(people(1)) == f"Detections(people=1, scores=[{people(1).scores[0]:.3f}], embedding_dim=3)"
    assert repr(people(9)).count(",") == 7 and "…" in repr(people(9))
    assert repr(Detections.empty(4)) == "Detections(people=0, scores=[], embedding_dim=4)"


def test_nobody():
    nobody = Detections.empty(256)
    assert len(nobody) == 0 and list(nobody) == [] and nobody.embeddings.shape == (0, 256)
    assert len(nobody[nobody.scores > 0.5]) == 0
    assert nobody.to_dict() == {"boxes": [], "scores": [], "embeddings": []}


def test_plain_values_survive_json():
    found = people()
    values = json.loads(json.dumps(found.to_dict()))
    again = Detections(**values)
    for name in ("boxes", "scores", "embeddings"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (([[0, 0, 1]], [1], [[1]]), r"Boxes must be \[n,4\]"),
        (([[0, 0, 1, np.inf]], [1], [[1]]), "finite"),
        (([[5, 0, 1, 9]], [1], [[1]]), "x1 <= x2"),
        (([[0, 0, 1, 1]], [1, 2], [[1]]), r"Scores must be \[1\].*got shape \[2\]"),
        (([[0, 0, 1, 1]], [1], [[1], [2]]), r"Embeddings must be \[1,D\]"),
        (([[0, 0, 1, 1]], [1], [1]), r"Embeddings must be \[1,D\]"),
        (([[0, 0, 1, 1]], ["high"], [[1]]), "Scores must be numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays, says):
    with pytest.raises(UsageError, match=says):
        Detections(*arrays)


def test_to_supervision_fills_its_fields(monkeypatch):
    # The real package brings opencv-python, which would replace opencv-python-headless.
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    found = people()
    converted = found.to_supervision()
    np.testing.assert_array_equal(converted.xyxy, found.boxes)
    np.testing.assert_array_equal(converted.confidence, found.scores)
    assert converted.class_id.tolist() == [0] * 5
    np.testing.assert_array_equal(converted.data["embedding"], found.embeddings)


def test_to_supervision_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UsageError, match="pip install supervision"):
        people().to_supervision()
