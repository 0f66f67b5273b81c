"""TensorRT and TensorRT for RTX: engines built from a bundle, kept beside it, and run."""
