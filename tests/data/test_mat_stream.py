import struct

import numpy as np
import pytest
from cuhk_disk import cells, structs
from scipy.io import loadmat, savemat

from psarm.data.mat_stream import Struct, stream_struct
from psarm.errors import DataError

TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.float32, np.float64, np.int64)


def read_all(path, variable="S"):
    with stream_struct(path, variable) as (count, elements):
        read = list(elements)
        assert len(read) == count
        return read


def outer(*inner):
    return {"S": structs(["Inner", "Other"], [(value, 1) for value in inner])}


def random_inner(rng, count):
    rows = []
    for _ in range(count):
        text = "".join(rng.choice(list("abcs0123.")) for _ in range(rng.integers(1, 25)))
        box = rng.integers(0, 100, (1, 4)).astype(TYPES[rng.integers(len(TYPES))])
        empty = [np.zeros((1, 0)), np.zeros((0, 0)), np.zeros((1, 0), np.uint8)][rng.integers(3)]
        rows.append((text, box if rng.random() < 0.5 else empty, 0))
    return structs(["imname", "idlocate", "ishard"], rows)


@pytest.mark.parametrize("compress", [False, True])
def test_reads_what_scipy_reads(tmp_path, compress):
    rng = np.random.default_rng(3)
    path = tmp_path / "file.mat"
    before = {"first": np.ones((3, 3)), "text": "some text", "cell": cells(["a", "b"])}
    savemat(path, before | outer(*(random_inner(rng, n) for n in (0, 1, 2, 17, 200))), do_compression=compress)
    elements = read_all(path)
    expected = loadmat(path)["S"].ravel()
    assert len(elements) == len(expected) == 5
    for element, other in zip(elements, expected, strict=True):
        assert set(element) == {"Inner", "Other"}
        inner, rows = Struct.parse(element["Inner"]), other["Inner"].ravel()
        assert inner.fields == ("imname", "idlocate", "ishard") and len(inner.tags) == len(rows)
        assert inner.texts("imname").astype(str).tolist() == [row["imname"][0] for row in rows]
        assert inner.is_empty("idlocate").tolist() == [row["idlocate"].size == 0 for row in rows]
        for i, row in enumerate(rows):
            if row["idlocate"].size:
                np.testing.assert_array_equal(inner.numbers("idlocate", i), row["idlocate"].ravel())


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def small(kind, data):
    return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")


def matrix(kind, rows, columns, content, dimensions=None):
    dimensions = dimensions or struct.pack("<ii", rows, columns)
    flags = element(6, struct.pack("<II", kind, 0))
    return element(14, flags + element(5, dimensions) + element(1, b"") + content)


def matlab_struct(fields, values):
    names = b"".join(name.encode().ljust(32, b"\0") for name in fields)
    return matrix(
        2, 1, len(values) // len(fields), small(5, struct.pack("<i", 32)) + element(1, names) + b"".join(values)
    )


@pytest.mark.parametrize("text", ["s1.jpg", "s12345.jpg", "s1", ""])
def test_reads_the_ways_matlab_writes_what_scipy_does_not(text):
    characters = [
        element(16, text.encode()),
        element(4, text.encode("utf-16-le")),
        element(17, text.encode("utf-16-le")),
        element(2, text.encode()),
    ]
    characters += [small(16, text.encode()), small(4, text.encode("utf-16-le"))] if len(text) < 3 else []
    never_set = struct.pack("<II", 14, 0)
    values = [value for content in characters for value in (matrix(4, 1, len(text), content), never_set)]
    inner = Struct.parse(matlab_struct(["imname", "idlocate"], values)[8:])
    assert inner.texts("imname").astype(str).tolist() == [text] * len(characters)
    assert inner.is_empty("idlocate").all()
    number = matlab_struct(["n"], [matrix(6, 1, 3, small(1, b"\x01\xff\x03"))])
    assert Struct.parse(number[8:]).numbers("n", 0).tolist() == [1, -1, 3]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (matrix(6, 1, 1, element(9, struct.pack("<d", 5))), "imname should hold texts"),
        (matrix(4, 2, 2, element(16, b"abcd")), "imname should hold texts of one line"),
        (matrix(4, 1, 4, element(3, b"abcd")), "imname should hold texts"),
        (matrix(4, 1, 4, struct.pack("<II", 16, 4000) + b"abcd1234"), "imname should hold texts"),
        (matrix(4, 1, 1, element(16, b"a"), struct.pack("<iii", 1, 1, 1)), "imname should hold texts"),
        (struct.pack("<II", 14, 0), "imname should hold texts"),
    ],
)
def test_what_is_no_text_is_refused(value, message):
    good = matrix(4, 1, 1, element(16, b"a"))
    with pytest.raises(DataError, match=message):
        Struct.parse(matlab_struct(["imname"], [good, value, good])[8:]).texts("imname")


def test_what_is_no_struct_or_number_is_refused(tmp_path):
    with pytest.raises(DataError, match="should be a struct"):
        Struct.parse(matrix(6, 1, 1, element(9, bytes(8)))[8:])
    inner = Struct.parse(matlab_struct(["a"], [matrix(4, 1, 1, element(16, b"a"))])[8:])
    with pytest.raises(DataError, match="the field a should hold numbers"):
        inner.numbers("a", 0)
    with pytest.raises(DataError, match=r"no field b \(found: a\)"):
        inner.texts("b")
    path = tmp_path / "file.mat"
    with pytest.raises(DataError, match=r"file.mat is missing"):
        read_all(path)
    savemat(path, {"a": 1, "b": "x"})
    with pytest.raises(DataError, match=r"file.mat: it has no variable S \(found: a, b\)"):
        read_all(path)
    with pytest.raises(DataError, match="should be a struct"):
        read_all(path, "a")


@pytest.mark.parametrize("compress", [False, True])
def test_every_cut_of_a_file_is_an_error(tmp_path, compress):
    path = tmp_path / "file.mat"
    savemat(path, outer(random_inner(np.random.default_rng(0), 3)), do_compression=compress)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"file\.mat"):
            read_all(path)


@pytest.mark.parametrize("compress", [False, True])
def test_damage_is_an_error_or_other_content_but_nothing_worse(tmp_path, compress):
    path = tmp_path / "file.mat"
    savemat(path, outer(random_inner(np.random.default_rng(0), 5)), do_compression=compress)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    noticed = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.integers(128, len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            for part in read_all(path):
                if "Inner" not in part:
                    continue  # the name of the field was hit
                inner = Struct.parse(part["Inner"])
                inner.texts("imname")
                for i in np.flatnonzero(~inner.is_empty("idlocate")):
                    inner.numbers("idlocate", i)
        except DataError:
            noticed += 1
    assert noticed > (370 if compress else 100)  # compressed data have a checksum
