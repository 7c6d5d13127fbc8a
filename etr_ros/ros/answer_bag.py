"""What a replay answered as a bag of the node's own messages, stamped as the pictures. No running ROS is needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rclpy.serialization import serialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from std_msgs.msg import Header

import etr_ros_msgs
from etr_ros.config import NodeConfig
from etr_ros.errors import DataError
from etr_ros.localization import pose_of_loop, pose_of_match
from etr_ros.result import Result
from etr_ros.ros import conversions
from etr_ros.ros.interfaces import LOOPS, MATCH, POSE, Endpoint
from etr_ros.types import PlaceMatch

NODE = "/etr"
VERSION: Final = 8  # of the bag's metadata; Humble and later read it


def write_answers(folder: Path, result: Result, camera_frame: str) -> None:
    """`/etr/match`, `/etr/pose` and `/etr/loop_closures` as MCAP; times and counters, which differ, are left empty.

    Raises DataError when the folder cannot be written or the message definitions are not installed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    store = get_typestore(Stores.ROS2_HUMBLE)
    for file in sorted(_definitions().glob("*.msg")):
        store.register(get_types_from_msg(file.read_text(encoding="utf-8"), f"etr_ros_msgs/msg/{file.stem}"))
    try:
        with Writer(folder, version=VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
            topics: dict[str, Connection] = {
                each.name: writer.add_connection(each.name.replace("~", NODE), each.type_name, typestore=store)
                for each in (MATCH, POSE, LOOPS)
            }
            for endpoint, stamp_ns, message in _messages(result, camera_frame):
                kind = endpoint.type_name  # read and written again, as the bytes between the values are left to chance
                exact = store.serialize_cdr(store.deserialize_cdr(serialize_message(message), kind), kind)
                writer.write(topics[endpoint.name], stamp_ns, exact)
    except OSError as error:
        raise DataError(f"cannot write the bag {folder}: {error.strerror}") from error


def _messages(result: Result, camera_frame: str) -> Iterator[tuple[Endpoint, int, Any]]:
    """In the order of their stamps: of each picture the match, the pose, its loops."""
    in_loop_mode = result.manifest.get("mode") == "loops"
    for query in result.queries:
        if query.match is None:
            continue
        yield MATCH, query.stamp_ns, _match_message(query.match, result, camera_frame)
        if not in_loop_mode:
            node = NodeConfig()
            known = pose_of_match(query.match, node.place_sigma_m, node.place_sigma_deg)
            if known is not None:
                stamp = conversions.to_stamp(query.stamp_ns)
                yield POSE, query.stamp_ns, conversions.to_pose_with_covariance(*known, stamp)
        for loop in result.loops:
            if loop.query.stamp_ns != query.stamp_ns:
                continue
            message = conversions.to_loop_message(loop, camera_frame)
            yield LOOPS, query.stamp_ns, message
            known = pose_of_loop(loop)
            if known is not None:
                yield POSE, query.stamp_ns, conversions.to_pose_with_covariance(*known, message.header.stamp)


def _match_message(match: PlaceMatch, result: Result, camera_frame: str) -> Any:
    header = Header(stamp=conversions.to_stamp(match.stamp_ns), frame_id=camera_frame)
    poses = (candidate.place.pose for candidate in match.candidates)
    frame_id = next((pose.frame_id for pose in poses if pose is not None), "")
    map_id = str((result.manifest.get("map") or {}).get("map_id", ""))
    message = conversions.to_match_message(match, header, map_id, frame_id)
    message.stages, message.age_ms = [], float("nan")
    return message


def _definitions() -> Path:
    """Where the message definitions of the installed package are."""
    for above in Path(etr_ros_msgs.__file__).resolve().parents:
        folder = above / "share" / "etr_ros_msgs" / "msg"
        if folder.is_dir():
            return folder
    raise DataError("the message definitions of etr_ros_msgs are not installed: build it with colcon")
