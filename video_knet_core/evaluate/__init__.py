"""Scores and speed of models.

`dataset_evaluation` scores a model, or predictions on disk, on a data set, by the evaluator of its
task: `panoptic`, `semantic` or `instances`. `clips` compares trackers on clips with exact tracks,
`bench` measures engines.
"""
