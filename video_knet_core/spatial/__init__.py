"""Metres: what depth images, point clouds, transforms and the ground plane say about tracks.

Points and axes are those of ROS: a camera's optical frame has x to the right, y down and z ahead.
"""
