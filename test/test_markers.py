"""What the markers show of a match, a map and loops; and that the layouts ask for what the node publishes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("etr_ros_msgs.msg")

from visualization_msgs.msg import Marker

from etr_ros.ros import interfaces, markers
from etr_ros.types import Candidate, Geometry, LoopClosure, Place, PlaceMatch, Pose, State
from etr_ros_msgs.msg import PlaceMatch as PlaceMatchMessage

CONFIG = Path(__file__).parent.parent / "config"
PUBLISHED = {endpoint.name.replace("~", "/etr"): endpoint.type_name for endpoint in interfaces.PUBLISHED}
RVIZ_TYPES = {
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "PoseWithCovariance": "geometry_msgs/msg/PoseWithCovarianceStamped",
    "Image": "sensor_msgs/msg/Image",
}


def place(number: int, frame_id: str | None = "map") -> Place:
    pose = None if frame_id is None else Pose((float(number), 1.0, 0.5), (0.0, 0.0, 0.6, 0.8), frame_id)
    return Place(number, f"{number:04d}", "drive", number, pose)


def answer(state: State, *candidates: Candidate) -> dict[str, Marker]:
    return {marker.ns: marker for marker in markers.match_markers(PlaceMatch(0, state, candidates))}


def test_of_a_large_map_every_so_many_places_are_shown() -> None:
    count = 2 * markers.MOST_DOTS + 1
    points = markers.map_markers([place(number) for number in range(count)])[0].points
    assert [point.x for point in points] == [float(number) for number in range(0, count, 3)]
    assert len(markers.map_markers([place(number) for number in range(10)])[0].points) == 10


def test_the_match_is_an_arrow_at_the_accepted_place() -> None:
    sure = Candidate(place(3), 0.9, 2.0, 0.97, 50, accepted=True)
    shown = answer(State.LOCALIZED, Candidate(place(1), 0.95, 1.0, 0.2), sure)
    arrow = shown["match"]
    assert (arrow.type, arrow.action, arrow.header.frame_id) == (Marker.ARROW, Marker.ADD, "map")
    assert (arrow.pose.position.x, arrow.pose.orientation.z) == (3.0, 0.6)
    assert shown["match text"].text == "localized: 0003, p 0.97"
    unsure = answer(State.AMBIGUOUS, sure)["match"]
    assert unsure.color != arrow.color


def test_nothing_recognised_takes_the_arrow_away() -> None:
    shown = answer(State.UNKNOWN, Candidate(place(1), 0.9, None, 0.1))
    assert shown["match"].action == shown["match text"].action == Marker.DELETE
    assert shown["candidates"].action == Marker.ADD
    assert answer(State.UNKNOWN)["candidates"].action == Marker.DELETE


def test_candidates_are_coloured_by_their_probability() -> None:
    candidates = [Candidate(place(n), 0.9, None, p) for n, p in enumerate((0.0, 0.5, 1.0, None, float("nan"), 7.0))]
    shown = answer(State.UNKNOWN, *candidates, Candidate(place(9, None), 0.9))["candidates"]
    assert len(shown.points) == len(shown.colors) == 6
    alphas = [colour.a for colour in shown.colors]
    assert alphas[:3] == pytest.approx([0.25, 0.625, 1.0]) and max(alphas) <= 1.0
    assert shown.colors[2].b > shown.colors[0].b


def test_the_map_is_the_places_with_poses() -> None:
    (shown,) = markers.map_markers([place(0), place(1, None), place(2)])
    assert [point.x for point in shown.points] == [0.0, 2.0] and shown.header.frame_id == "map"
    assert markers.map_markers([place(0, None)])[0].action == Marker.DELETE


def test_loops_are_lines_between_poses_of_one_frame() -> None:
    def loop(query: int, match: Place, accepted: bool) -> LoopClosure:
        return LoopClosure(place(query, "odom"), match, Geometry(30, 40), accepted=accepted)

    loops = [loop(5, place(1, "odom"), True), loop(6, place(2, "odom"), False), loop(7, place(2, "map"), True)]
    loops.append(loop(8, dataclasses.replace(place(3), pose=None), True))
    accepted, rejected = markers.loop_markers(loops)
    assert [point.x for point in accepted.points] == [1.0, 5.0] and accepted.header.frame_id == "odom"
    assert [point.x for point in rejected.points] == [2.0, 6.0] and rejected.type == Marker.LINE_LIST
    assert [marker.action for marker in markers.loop_markers([])] == [Marker.DELETE] * 2


def rviz_topics() -> dict[str, str]:
    layout = yaml.safe_load((CONFIG / "etr.rviz").read_text())
    shown = [each for each in layout["Visualization Manager"]["Displays"] if "Topic" in each]
    return {each["Topic"]["Value"]: RVIZ_TYPES[each["Class"].removeprefix("rviz_default_plugins/")] for each in shown}


def foxglove() -> dict[str, Any]:
    layout: dict[str, Any] = json.loads((CONFIG / "etr.foxglove.json").read_text())
    return layout


def test_rviz_asks_for_what_the_node_publishes() -> None:
    topics = rviz_topics()
    assert topics.items() <= PUBLISHED.items()
    assert {"/etr/markers", "/etr/pose", "/etr/annotated"} == set(topics)


def test_foxglove_asks_for_what_the_node_publishes() -> None:
    asked = set(re.findall(r'"(/[a-z_/]+)', json.dumps(foxglove()["configById"])))
    assert asked == set(PUBLISHED)


def test_foxglove_plots_fields_that_there_are() -> None:
    fields = PlaceMatchMessage.get_fields_and_field_types()
    for name, panel in foxglove()["configById"].items():
        for path in panel["paths"] if name.startswith("Plot!") else ():
            first, *rest = path["value"].removeprefix("/etr/match.").split(".")
            assert first.split("[")[0] in fields
            assert not rest or rest == ["probability"]


def test_foxglove_shows_every_panel_once() -> None:
    def panels(node: Any) -> list[str]:
        return [node] if isinstance(node, str) else panels(node["first"]) + panels(node["second"])

    layout = foxglove()
    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])


def test_layouts_name_the_namespaces_that_there_are() -> None:
    known = {markers.MAP, markers.MATCH, markers.LABEL, markers.CANDIDATES, markers.ACCEPTED, markers.REJECTED}
    display = yaml.safe_load((CONFIG / "etr.rviz").read_text())["Visualization Manager"]["Displays"][1]
    assert set(display["Namespaces"]) == known
    assert set(foxglove()["configById"]["3D!etr"]["topics"]["/etr/markers"]["namespaces"]) <= known
