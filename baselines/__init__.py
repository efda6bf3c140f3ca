"""The systems that Video K-Net is compared with, built from their papers on our backbones.

Networks and trackers are found by entry points: with this package installed, `video-knet train`,
`export`, `eval`, `track` and `replay` take them as they take a Video K-Net.
"""
