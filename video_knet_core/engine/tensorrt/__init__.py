"""TensorRT and TensorRT-RTX: plans are built, kept in a cache and run on a GPU."""
