"""Recordings of ROS messages: read as far as they go, and written. No ROS is needed.

Types, (de)serialisation and writing are those of the `rosbags` library. Reading is not: its readers
hold an index of the whole file in memory, and open no file whose end is missing. Here a bag is read
once from front to back, as it was recorded, with one chunk in memory, up to damage if there is any.
"""
