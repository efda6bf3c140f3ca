"""Recordings of ROS messages: read as far as they go, and written. No ROS is needed.

Records of MCAP are parsed by `mcap`, those of ROS 1, types and messages by `rosbags`, which also
writes; SQLite is `sqlite3`. What their readers do not do is in `chunked.py` and `sqlite.py`.
"""
