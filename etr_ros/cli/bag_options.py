"""Options that say what to read of a bag."""

from __future__ import annotations

import argparse

from etr_ros.config import SensorConfig

# Options that are values of SensorConfig, by name
SENSOR_OPTIONS = ("camera_info_topic", "rectified", "depth_topic", "camera_mount", "base_frame")
OF_BAG = ("image_topic", "pose_topic", *SENSOR_OPTIONS)


def add_bag_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup, bag: str) -> None:
    """The topics and the mount; `bag` is how the help texts call the recording."""
    parser.add_argument("--image-topic", metavar="TOPIC", help=f"topic of {bag}, raw or compressed images")
    parser.add_argument(
        "--pose-topic", metavar="TOPIC", help=f"topic of {bag}: Odometry, PoseStamped or PoseWithCovarianceStamped"
    )
    parser.add_argument(
        "--camera-info-topic", metavar="TOPIC", help=f"topic of {bag}: CameraInfo, for intrinsics and so relative poses"
    )
    parser.add_argument(
        "--rectified", action="store_true", help=f"the pictures of {bag} are rectified: take P of the camera info"
    )
    parser.add_argument(
        "--depth-topic",
        metavar="TOPIC",
        help=f"topic of {bag}: depth registered to the pictures, 16UC1 in mm or 32FC1 in m, raw or compressedDepth png",
    )
    parser.add_argument(
        "--camera-mount",
        metavar="'X Y Z ROLL PITCH YAW'",
        help=f"where the camera of {bag} sits on the robot's body, in metres and degrees; with zero angles it looks "
        "along the body's x, a positive pitch tilts it down (default: from /tf_static of the bag)",
    )
    parser.add_argument(
        "--base-frame",
        metavar="FRAME",
        help=f"frame of the robot's body in /tf_static of {bag}, where no odometry names it "
        f"(default: {SensorConfig().base_frame})",
    )


def sensors_from(args: argparse.Namespace) -> SensorConfig | None:
    """What the options say of camera info, depth and mount; None when they say nothing. Raises ConfigError."""
    given = {name: getattr(args, name) for name in SENSOR_OPTIONS if getattr(args, name)}
    return SensorConfig(**given) if given else None
