"""Between the core and ROS messages, wherever their classes come from: no ROS is imported here.

The node gives the classes of rclpy, a replay those of rosbags; see `result_messages.Conversions`.
"""
