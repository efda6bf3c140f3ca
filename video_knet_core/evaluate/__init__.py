"""Scores a model, or predictions on disk, on any of the labelled data sets.

`tasks.py` chooses by the task of the data set; `run.py` goes through the frames. `panoptic.py`,
`semantic.py` and `instances.py` measure; `by_model.py` predicts. `street.py` is apart: the
synthetic street and CamVid, with what the street model is judged by.
"""
