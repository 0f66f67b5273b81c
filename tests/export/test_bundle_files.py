"""What an export leaves on disk: graphs with dynamic sizes, a manifest that fits them, and nothing else."""

import numpy as np
import onnx
import onnxruntime

from psarm.export.verify import verify_bundle
from psarm.model.fingerprint import embedding_fingerprint
from psarm.runtime.bundle import Bundle


def operators(bundle, graph):
    return [node.op_type for node in onnx.load(bundle / f"{graph}.onnx").graph.node]


def test_verification_passes(exported):
    """Every limit is kept with a wide margin, on inputs other than the traced ones."""
    comparisons = verify_bundle(exported.model, exported.bundle)
    assert {comparison.graph for comparison in comparisons} == {"detect", "reid", "bundle"}
    for comparison in comparisons:
        assert not comparison.failures()
        assert (comparison.boxes or 0) < 1e-3
        assert (comparison.scores or 0) < 1e-5
        assert (comparison.embeddings or 0) < 1e-5
    compared = {(c.graph, c.case): c.compared for c in comparisons}
    assert compared["bundle", "nobody"] == 0
    assert compared["bundle", "one person"] == 1
    assert compared["bundle", "few people, 3 frames"] > 1
    assert compared["detect", "smallest image"] < 40


def test_the_bundle_opens_and_describes_itself(exported):
    manifest = Bundle.open(exported.bundle).manifest
    config = exported.model.config
    assert {path.name for path in exported.bundle.iterdir()} == {"manifest.json", "detect.onnx", "reid.onnx"}
    assert (manifest.model.variant, manifest.model.arm_layout) == (config.variant, config.arm_layout)
    assert manifest.model.parameters == sum(p.numel() for p in exported.model.parameters())
    assert manifest.embedding.size == config.embedding_dim
    assert manifest.embedding.fingerprint == embedding_fingerprint(exported.model)
    assert (manifest.preprocessing.min_size, manifest.preprocessing.max_size) == (96, 160)
    assert manifest.graphs["detect"].inputs["images"].shape == ("N", 3, "H", "W")
    assert manifest.graphs["detect"].outputs["boxes"].shape == ("N", 40, 4)
    assert manifest.graphs["detect"].outputs["features"].shape[2:] == ("H/16", "W/16")
    assert manifest.graphs["reid"].inputs["boxes"].shape == ("R", 4)
    assert manifest.graphs["reid"].outputs["embeddings"].shape == ("R", 32)
    assert manifest.dataset is None


def test_features_are_the_reduced_map(exported):
    channels = Bundle.open(exported.bundle).manifest.graphs["detect"].outputs["features"].shape[1]
    full = exported.model.backbone.out_channels
    assert channels == (full if exported.variant == "seqnet" else full // 4)


def test_norms_are_folded_and_arm_keeps_its_operators(exported):
    for graph in ("detect", "reid"):
        found = operators(exported.bundle, graph)
        assert "BatchNormalization" not in found
        assert "GlobalAveragePool" not in found
        mixers = 0 if exported.variant == "seqnet" else 2
        assert found.count("LayerNormalization") == found.count("Gelu") == mixers
        assert found.count("RoiAlign") == 1
    assert operators(exported.bundle, "detect").count("NonMaxSuppression") == 1
    assert not {"If", "Loop", "Scan", "SequenceEmpty"} & set(operators(exported.bundle, "detect"))


def test_files_tell_nothing_of_the_machine(exported):
    for graph in ("detect", "reid"):
        model = onnx.load(exported.bundle / f"{graph}.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert (model.producer_name, model.opset_import[0].version, len(model.opset_import)) == ("psarm", 20, 1)
        del model.graph.initializer[:]  # random bytes
        content = model.SerializeToString()
        assert b".py" not in content and b"stack_trace" not in content and b"/usr" not in content


def test_an_image_with_no_proposal_beside_one_with_many(exported):
    """Everything is clipped away in an image of no valid size; its rows are padding, the other image's are as alone."""
    session = onnxruntime.InferenceSession(exported.bundle / "detect.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 96, 64)).astype(np.float32)
    names = ["boxes", "scores", "counts"]
    boxes, scores, counts = session.run(names, {"images": images, "image_sizes": np.array([[0, 0], [96, 64]])})
    alone = session.run(names, {"images": images[1:], "image_sizes": np.array([[96, 64]])})
    assert counts.tolist() == [0, 40]
    assert not boxes[0].any() and not scores[0].any()
    np.testing.assert_allclose(boxes[1], alone[0][0], atol=1e-4)
    np.testing.assert_allclose(scores[1], alone[1][0], atol=1e-6)


def test_scores_are_probabilities_and_boxes_lie_inside(exported):
    session = onnxruntime.InferenceSession(exported.bundle / "detect.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).normal(0, 1, (1, 3, 64, 160)).astype(np.float32)
    boxes, scores = session.run(["boxes", "scores"], {"images": images, "image_sizes": np.array([[50, 145]])})
    assert ((scores > 0) & (scores < 1)).all()
    assert boxes.min() >= 0 and boxes[..., 0::2].max() <= 145 and boxes[..., 1::2].max() <= 50
