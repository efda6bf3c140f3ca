"""Scores a model, or predictions on disk, on any of the labelled data sets.

`tasks.py` says for each data set what is predicted, measured and saved; `run.py` goes through the
frames. `panoptic.py`, `semantic.py` and `instances.py` measure; `by_model.py` predicts;
`saved_maps.py` and `saved_tracks.py` write and read predictions on disk. `street.py` is apart: the
synthetic street and CamVid, with what the street model is judged by.
"""
