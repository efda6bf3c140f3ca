"""Recordings of ROS messages: read as far as they go, and written. No ROS is needed.

The parsing is that of libraries: records of MCAP by `mcap`, records of ROS 1, types, messages and
the writing by `rosbags`, SQLite by `sqlite3`. Ours is the way through a file: a bag is read once
from front to back, as it was recorded, with one chunk in memory, up to damage if there is any. The
readers of those libraries hold an index of the whole file in memory, give messages in the order of
their times, and open no file whose end is missing.
"""
