"""From kernels' masks to the segments of a frame, one file per task; also in the exported graph.

So everything here is made of what TensorRT builds: no scatter, NonZero, boolean indexing or
`table[index]`.
"""
