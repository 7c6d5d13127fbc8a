"""A node that wants compressed, reliable images: what it says when it gets none, and that it answers them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from fake_recognizer import pixels
from robot import NodeProcess, Robot
from sensor_msgs.msg import CompressedImage, Image

TOPIC = "/camera/compressed"


@pytest.fixture(scope="module")
def listening(robot: Robot, map_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    parameters = {
        "node.map": map_path,
        "node.autostart": True,
        "node.image_topic": TOPIC,
        "node.compressed": True,
        "node.image_timeout_s": 0.5,
    }
    with NodeProcess(tmp_path_factory.mktemp("node") / "log", **parameters) as process:
        yield robot
        assert process.stop() == 0


def complaint(robot: Robot, words: str) -> str:
    def matches(status: DiagnosticStatus) -> bool:
        return status.level == DiagnosticStatus.ERROR and words in status.message

    return robot.status(matches, words).message


def test_nobody_publishes(listening: Robot) -> None:
    message = complaint(listening, "nobody publishes there")
    assert f"on {TOPIC} (sensor_msgs/msg/CompressedImage, reliable, depth 2)" in message


@pytest.mark.parametrize(
    ("publish", "words"),
    [
        (
            lambda robot: robot.node.create_publisher(Image, TOPIC, 1),
            "carries sensor_msgs/msg/Image; set node.compressed to false",
        ),
        (
            lambda robot: robot.best_effort(CompressedImage, TOPIC),
            "1 publisher (best effort) with incompatible quality of service; set node.reliable to false",
        ),
    ],
)
def test_publisher_does_not_fit(listening: Robot, publish: Callable[[Robot], object], words: str) -> None:
    publisher = publish(listening)
    assert words in complaint(listening, words)
    listening.node.destroy_publisher(publisher)


def test_compressed_images_are_answered(listening: Robot) -> None:
    publisher = listening.node.create_publisher(CompressedImage, TOPIC, 10)
    assert listening.show(listening.compressed(pixels(place_id=2)), publisher).candidates[0].place_id == 2
    truncated = listening.compressed(pixels())
    truncated.data = truncated.data[:40]
    for bad, reason in (
        (truncated, "truncated"),
        (CompressedImage(), "empty"),
        (CompressedImage(data=b"xyz"), "no picture"),
    ):
        future = listening.localize_async()
        listening.spin(0.2)
        publisher.publish(bad)
        answer = listening.answer(future, "localize")
        assert not answer.success
        assert reason in answer.message
    assert listening.show(listening.compressed(pixels(place_id=3)), publisher).candidates[0].place_id == 3
    listening.node.destroy_publisher(publisher)
