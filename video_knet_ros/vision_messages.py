"""The vision_msgs of the core, bound to the message classes of rclpy.

Importing this file raises ImportError where vision_msgs is not installed; nothing else needs it.
"""

from __future__ import annotations

from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
    VisionClass,
)

from video_knet_core.messages.result_messages import VisionConversions, VisionTypes

_conversions = VisionConversions(
    VisionTypes(
        Detection2DArray=Detection2DArray,
        Detection2D=Detection2D,
        BoundingBox2D=BoundingBox2D,
        Pose2D=Pose2D,
        Point2D=Point2D,
        ObjectHypothesisWithPose=ObjectHypothesisWithPose,
        ObjectHypothesis=ObjectHypothesis,
        LabelInfo=LabelInfo,
        VisionClass=VisionClass,
        PoseWithCovariance=PoseWithCovariance,
        Pose=Pose,
        Point=Point,
        Quaternion=Quaternion,
    )
)
detections = _conversions.detections
label_info = _conversions.label_info
