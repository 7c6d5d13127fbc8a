"""What the node knows, as markers for RViz and Foxglove: the map's places, the current match, candidates, loops.

Each marker is replaced by the next of its namespace. Stamps are zero, so that viewers use the newest transform.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker

from etr_ros.ros.conversions import to_pose_message
from etr_ros.types import LoopClosure, Place, PlaceMatch, Pose, State

MAP, MATCH, LABEL = "map", "match", "match text"
CANDIDATES, ACCEPTED, REJECTED = "candidates", "loops accepted", "loops rejected"
MOST_DOTS = 4000  # what is made and sent in 0.1 s, between two answers
PLACE_M, CANDIDATE_M, ARROW_M, TEXT_M, LINE_M = 0.12, 0.3, 0.9, 0.35, 0.05

Colour = tuple[float, float, float, float]
GREY: Colour = (0.55, 0.6, 0.65, 0.9)
BLUE: Colour = (0.15, 0.5, 0.9, 1.0)
AMBER: Colour = (0.9, 0.6, 0.1, 1.0)
RED: Colour = (0.85, 0.25, 0.1, 0.35)
WHITE: Colour = (1.0, 1.0, 1.0, 1.0)


def map_markers(places: Sequence[Place]) -> list[Marker]:
    """The places that have a pose as dots; of a large map every so many, `MOST_DOTS` together."""
    step = math.ceil(len(places) / MOST_DOTS)
    shown = places[::step] if step > 1 else places
    poses = [place.pose for place in shown if place.pose is not None]
    if not poses:
        return [_nothing(MAP)]
    marker = _marker(MAP, Marker.SPHERE_LIST, poses[0].frame_id, GREY, (PLACE_M,) * 3)
    marker.points = [_point(pose) for pose in poses]
    return [marker]


def match_markers(match: PlaceMatch) -> list[Marker]:
    """The accepted place as an arrow with a line of text, and the candidates coloured by their probability."""
    best = match.best
    pose = None if best is None else best.place.pose
    if best is None or pose is None:
        return [_nothing(MATCH), _nothing(LABEL), *_candidate_markers(match)]
    colour = BLUE if match.state is State.LOCALIZED else AMBER
    arrow = _marker(MATCH, Marker.ARROW, pose.frame_id, colour, (ARROW_M, 0.15, 0.15))
    arrow.pose = to_pose_message(pose)
    text = _marker(LABEL, Marker.TEXT_VIEW_FACING, pose.frame_id, WHITE, (0.0, 0.0, TEXT_M))
    text.pose.position = _point(pose, above_m=0.6)
    sure = "" if best.probability is None else f", p {best.probability:.2f}"
    text.text = f"{match.state.value}: {best.place.name}{sure}"
    return [arrow, text, *_candidate_markers(match)]


def loop_markers(loops: Sequence[LoopClosure]) -> list[Marker]:
    """A line from each picture to the place it was taken for, both by odometry; loops with another map have none."""
    return [
        _lines(ACCEPTED, BLUE, [loop for loop in loops if loop.accepted]),
        _lines(REJECTED, RED, [loop for loop in loops if not loop.accepted]),
    ]


def _candidate_markers(match: PlaceMatch) -> list[Marker]:
    known = [(pose, each) for each in match.candidates if (pose := each.place.pose) is not None]
    if not known:
        return [_nothing(CANDIDATES)]
    marker = _marker(CANDIDATES, Marker.SPHERE_LIST, known[0][0].frame_id, WHITE, (CANDIDATE_M,) * 3)
    marker.points = [_point(pose) for pose, _ in known]
    marker.colors = [_colour(_by_probability(each.probability)) for _, each in known]
    return [marker]


def _by_probability(probability: float | None) -> Colour:
    """From grey to blue; the unlikely ones are faint."""
    if probability is None or not math.isfinite(probability):
        return GREY
    share = min(1.0, max(0.0, probability))
    red, green, blue, _ = (a + share * (b - a) for a, b in zip(GREY, BLUE, strict=True))
    return red, green, blue, 0.25 + 0.75 * share


def _lines(namespace: str, colour: Colour, loops: Iterable[LoopClosure]) -> Marker:
    ends = [(loop.match.pose, loop.query.pose) for loop in loops]
    known = [(a, b) for a, b in ends if a is not None and b is not None and a.frame_id == b.frame_id]
    if not known:
        return _nothing(namespace)
    marker = _marker(namespace, Marker.LINE_LIST, known[-1][0].frame_id, colour, (LINE_M, 0.0, 0.0))
    marker.points = [_point(pose) for pair in known for pose in pair]
    return marker


def _marker(namespace: str, kind: int, frame_id: str, colour: Colour, scale: tuple[float, float, float]) -> Marker:
    marker = Marker(ns=namespace, type=kind, action=Marker.ADD)
    marker.header.frame_id = frame_id
    marker.color = _colour(colour)
    marker.scale = Vector3(x=scale[0], y=scale[1], z=scale[2])
    marker.pose.orientation.w = 1.0
    return marker


def _nothing(namespace: str) -> Marker:
    """Takes away what the namespace showed."""
    return Marker(ns=namespace, action=Marker.DELETE)


def _point(pose: Pose, above_m: float = 0.0) -> Point:
    x, y, z = pose.position_m
    return Point(x=float(x), y=float(y), z=float(z) + above_m)


def _colour(colour: Colour) -> ColorRGBA:
    return ColorRGBA(r=colour[0], g=colour[1], b=colour[2], a=colour[3])
