"""Between ROS messages and the values of the core. Pure functions.

Pictures go through `etr_ros.images` and not through cv_bridge, which is compiled against one numpy ABI and breaks with
another; the same decoder then serves bags, folders and topics.
"""

from __future__ import annotations

import math
from array import array
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseWithCovarianceStamped, Quaternion
from geometry_msgs.msg import Pose as PoseMessage
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from etr_ros import images
from etr_ros.errors import ImageError
from etr_ros.poses import to_pose
from etr_ros.transforms import Matrix
from etr_ros.types import Candidate, Frame, LoopClosure, Place, PlaceMatch, Pose, State
from etr_ros_msgs.msg import LoopClosure as LoopClosureMessage
from etr_ros_msgs.msg import MapInfo as MapInfoMessage
from etr_ros_msgs.msg import PlaceCandidate, StageTime
from etr_ros_msgs.msg import PlaceMatch as PlaceMatchMessage

if TYPE_CHECKING:
    from etr_ros.database import MapInfo

_STATES = {
    State.UNKNOWN: PlaceMatchMessage.STATE_UNKNOWN,
    State.LOCALIZED: PlaceMatchMessage.STATE_LOCALIZED,
    State.AMBIGUOUS: PlaceMatchMessage.STATE_AMBIGUOUS,
}
_STATES_BACK = {number: state for state, number in _STATES.items()}


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds since epoch."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def to_stamp(nanoseconds: int) -> Time:
    """A stamp from nanoseconds since epoch; zero when the message cannot hold it (seconds are 32 bits with sign)."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return Time(sec=seconds, nanosec=rest) if -(2**31) <= seconds < 2**31 else Time()


def to_frame(message: Image | CompressedImage, enough_px: int = 0) -> Frame:
    """A camera image, raw or compressed, as the core's frame, see `images.decode_reduced`. Raises ImageError."""
    if isinstance(message, CompressedImage) and "compressedDepth" in message.format:
        raise ImageError("this is a compressed depth image: choose the topic of a colour or grey camera")
    image, size = images.from_message(message, enough_px)
    return Frame(image, stamp_ns(message.header.stamp), full_size=size)


def to_image(image: NDArray[np.uint8], header: Header) -> Image:
    """A (H, W, 3) uint8 BGR picture as a raw ROS image."""
    height, width = image.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
    data = array("B")
    data.frombytes(image.tobytes())
    message.data = data
    return message


def to_pose_message(pose: Pose) -> PoseMessage:
    """Position and orientation; the frame goes into the header of the message around."""
    x, y, z = pose.position_m
    qx, qy, qz, qw = pose.quat_xyzw
    return PoseMessage(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def from_pose_message(message: PoseMessage, frame_id: str) -> Pose:
    """The inverse of `to_pose_message`."""
    position, orientation = message.position, message.orientation
    return Pose(
        (position.x, position.y, position.z), (orientation.x, orientation.y, orientation.z, orientation.w), frame_id
    )


def from_odometry(message: Odometry) -> Pose | None:
    """Pose of the robot body in the odometry frame, or None when the numbers are no pose (NaN, no unit quaternion)."""
    position, orientation = message.pose.pose.position, message.pose.pose.orientation
    values = position.x, position.y, position.z, orientation.x, orientation.y, orientation.z, orientation.w
    return to_pose(values, message.header.frame_id)


def to_pose_with_covariance(pose: Pose, covariance: Matrix, stamp: Time) -> PoseWithCovarianceStamped:
    """A pose in its fixed frame and its (6, 6) covariance."""
    message = PoseWithCovarianceStamped(header=Header(stamp=stamp, frame_id=pose.frame_id))
    message.pose.pose = to_pose_message(pose)
    message.pose.covariance = covariance.ravel().tolist()
    return message


def to_loop_message(loop: LoopClosure, camera_frame: str) -> LoopClosureMessage:
    """A decided loop; what was not computed becomes NaN or -1."""
    found = loop.geometry
    message = LoopClosureMessage(
        header=Header(stamp=to_stamp(loop.query.stamp_ns), frame_id=camera_frame),
        query_session=loop.query.session,
        match_session=loop.match.session,
        query_id=loop.query.place_id,
        match_id=loop.match.place_id,
        query_stamp=to_stamp(loop.query.stamp_ns),
        match_stamp=to_stamp(loop.match.stamp_ns),
        is_metric=bool(found.is_metric),
        probability=math.nan if loop.probability is None else loop.probability,
        inliers=found.inliers,
        degeneracy=found.degeneracy,
        support=loop.support,
        accepted=loop.accepted,
        reason=loop.reason,
    )
    nothing = Pose((math.nan,) * 3, (math.nan,) * 4)
    message.match_t_query.pose = to_pose_message(found.match_t_query or nothing)
    covariance = np.full(36, math.nan) if found.covariance is None else found.covariance.ravel()
    message.match_t_query.covariance = covariance.tolist()
    return message


def to_candidate_message(candidate: Candidate) -> PlaceCandidate:
    """One candidate; what was not computed becomes NaN or -1."""
    place = candidate.place
    message = PlaceCandidate(
        place_id=place.place_id,
        name=place.name,
        session=place.session,
        stamp=to_stamp(place.stamp_ns),
        has_pose=place.pose is not None,
        retrieval_score=candidate.retrieval_score,
        etr_score=math.nan if candidate.etr_score is None else candidate.etr_score,
        probability=math.nan if candidate.probability is None else candidate.probability,
        inliers=-1 if candidate.inliers is None else candidate.inliers,
        weight=candidate.weight,
        accepted=candidate.accepted,
        reason=candidate.reason,
    )
    if place.pose is not None:
        message.pose = to_pose_message(place.pose)
    return message


def from_candidate_message(message: PlaceCandidate, map_frame: str) -> Candidate:
    """The inverse of `to_candidate_message`, scores in single precision."""
    place = Place(
        place_id=message.place_id,
        name=message.name,
        session=message.session,
        stamp_ns=stamp_ns(message.stamp),
        pose=from_pose_message(message.pose, map_frame) if message.has_pose else None,
    )
    return Candidate(
        place=place,
        retrieval_score=message.retrieval_score,
        etr_score=None if math.isnan(message.etr_score) else message.etr_score,
        probability=None if math.isnan(message.probability) else message.probability,
        inliers=None if message.inliers < 0 else message.inliers,
        accepted=message.accepted,
        reason=message.reason,
        weight=message.weight,
    )


def to_match_message(match: PlaceMatch, header: Header, map_id: str, map_frame: str) -> PlaceMatchMessage:
    """The answer to the image with this header; age and counters are left to the node."""
    return PlaceMatchMessage(
        header=header,
        map_id=map_id,
        map_frame=map_frame,
        state=_STATES[match.state],
        candidates=[to_candidate_message(candidate) for candidate in match.candidates],
        scored=match.scored,
        stages=[StageTime(name=name, duration_ms=duration) for name, duration in match.stage_ms.items()],
    )


def from_match_message(message: PlaceMatchMessage) -> PlaceMatch:
    """The inverse of `to_match_message`, scores and times in single precision."""
    return PlaceMatch(
        stamp_ns=stamp_ns(message.header.stamp),
        state=_STATES_BACK[message.state],
        candidates=tuple(from_candidate_message(each, message.map_frame) for each in message.candidates),
        stage_ms={stage.name: stage.duration_ms for stage in message.stages},
    )


def to_map_info_message(info: MapInfo) -> MapInfoMessage:
    """What `~/get_map_info` reports."""
    return MapInfoMessage(
        map_id=info.map_id,
        path=info.path,
        format_version=info.format_version,
        places=info.places,
        sessions=list(info.sessions),
        has_poses=info.has_poses,
        frame_id=info.frame_id,
        extractor=info.extractor,
        global_descriptor=info.global_descriptor,
        size_bytes=info.size_bytes,
        created=_utc(info.created),
    )


def _utc(text: str) -> Time:
    """An ISO 8601 time, UTC unless it says otherwise; zero when it is none."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return Time()
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return to_stamp(int(aware.timestamp()) * 1_000_000_000)
