"""TensorRT and TensorRT-RTX: plans are built, cached and run on a GPU."""
