"""Opening a bundle: what is read back, and one clear sentence for everything that is wrong with one."""

import json
import shutil

import pytest
import toy_bundle as toy

from psarm.errors import BundleError, UsageError
from psarm.runtime import Bundle
from psarm.runtime.manifest import Manifest, read_manifest, write_manifest


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "toy.psarm")


def edit(bundle, *keys, value=None, drop=False):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    group = manifest
    for key in keys[:-1]:
        group = group[key]
    if drop:
        del group[keys[-1]]
    else:
        group[keys[-1]] = value
    path.write_text(json.dumps(manifest))


def test_a_manifest_is_read_back_as_it_was_written(original, tmp_path):
    manifest = toy.toy_manifest(original)
    assert read_manifest(original) == manifest
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert isinstance(manifest, Manifest)


def test_a_bundle_tells_its_files(original):
    bundle = Bundle.open(original)
    assert bundle.graph_path("fp32", "reid") == original / "reid.onnx"
    assert bundle.graph_bytes("fp32") == sum((original / f"{g}.onnx").stat().st_size for g in ("detect", "reid"))
    assert bundle.resolve_precision("auto") == bundle.resolve_precision("fp32") == "fp32"
    assert bundle.graph_bytes("bf16") == bundle.graph_bytes("fp32")
    with pytest.raises(UsageError, match=r"holds no fp16 graphs, only fp32; export it with: .*--precision fp32,fp16"):
        bundle.resolve_precision("fp16")


def test_unknown_keys_and_no_data_set_are_fine(bundle):
    edit(bundle, "later", value=1)
    edit(bundle, "dataset", value=None)
    assert Bundle.open(bundle).manifest.dataset is None


def test_both_schemas_are_read(bundle):
    assert Bundle.open(bundle).manifest.schema == 1
    edit(bundle, "schema", value=2)
    assert Bundle.open(bundle).manifest.schema == 2


def test_places_that_are_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"no bundle at .*gone"):
        Bundle.open(tmp_path / "gone")
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        Bundle.open(tmp_path)
    (tmp_path / "model.pth").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"is a file, not a bundle directory.*psarm export"):
        Bundle.open(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "no schema number"),
        ("{}", "no schema number"),
        ('{"schema": "1"}', "no schema number"),
        ('{"schema": 3}', "made by a newer psarm: schema 3, this psarm reads 1 to 2; upgrade psarm"),
        ('{"schema": 0}', "has schema 0, this psarm reads 1 to 2; export the bundle again"),
        ('{"schema": 1}', "the key psarm_version is missing"),
        ('{"schema": 2}', "the key psarm_version is missing"),
        ("\x00\xff", "not valid JSON"),
    ],
)
def test_a_manifest_that_cannot_be_read(bundle, text, says):
    (bundle / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=says):
        Bundle.open(bundle)


def paths_of(value, prefix=()):
    """Every key path of a tree of dictionaries."""
    for key, item in value.items():
        yield (*prefix, key)
        if isinstance(item, dict):
            yield from paths_of(item, (*prefix, key))


def test_every_key_that_is_missing_is_named(original, bundle):
    manifest = json.loads((original / "manifest.json").read_text())
    free = {"later", "tensorrt", "weights"}
    for keys in paths_of(manifest):
        if keys[0] == "schema" or keys[-1] in free:
            continue
        shutil.copy(original / "manifest.json", bundle)
        edit(bundle, *keys, drop=True)
        with pytest.raises(BundleError, match=keys[0]):
            Bundle.open(bundle)


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("opset",), "18", "opset is '18'; needed a value of type int"),
        (("model", "width"), True, "model.width is True"),
        (("model",), [], "model is .*needed a mapping"),
        (("preprocessing", "mean"), [0.5, 0.5], "preprocessing.mean .*list of 3"),
        (("preprocessing", "mean"), 0.5, "preprocessing.mean .*a list"),
        (("preprocessing", "std"), [0.2, 0.2, 0], "preprocessing.std .*more than 0"),
        (("preprocessing", "colour"), "BGR", "preprocessing.colour is 'BGR'; needed 'RGB'"),
        (("preprocessing", "range"), [0, 255], "preprocessing.range"),
        (("preprocessing", "min_size"), 0, "preprocessing.min_size"),
        (("thresholds", "score"), 7, "thresholds.score is 7; needed between 0 and 1"),
        (("thresholds", "detections_per_image"), 0, "detections_per_image"),
        (("embedding", "size"), 16, r"graphs.reid.outputs.embeddings.shape.*\[R, 16\]"),
        (("embedding", "size"), 0, "embedding.size"),
        (("dataset",), 3, "dataset is 3"),
        (("precisions",), {}, "at least one precision"),
        (("precisions", "fp32", "reid"), "other.onnx", "a file listed under files"),
        (("files", "../evil"), {"sha256": "", "size": 0}, "a path inside the bundle"),
        (("files", "/etc/passwd"), {"sha256": "", "size": 0}, "a path inside the bundle"),
        (("graphs", "detect", "outputs", "scores", "shape"), [None], r"outputs.scores.shape is None"),
        (("graphs", "reid", "inputs", "features", "shape"), ["N", 5, "h", "w"], "what the detect graph gives"),
    ],
)
def test_values_that_cannot_be_are_named(bundle, keys, value, says):
    edit(bundle, *keys, value=value)
    with pytest.raises(BundleError, match=says):
        Bundle.open(bundle)


def test_changed_files_are_noticed(bundle):
    graph = bundle / "detect.onnx"
    data = bytearray(graph.read_bytes())
    graph.write_bytes(data[:-10])
    with pytest.raises(BundleError, match=r"detect\.onnx has \d+ bytes, its manifest says \d+"):
        Bundle.open(bundle)
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256 differs"):
        Bundle.open(bundle)
    graph.unlink()
    with pytest.raises(BundleError, match=r"lacks its file detect\.onnx"):
        Bundle.open(bundle)
