"""The node's process in the made-up world of test/landmarks.py: real loop detection, real geometry, no networks."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from etr_ros.config import RobotConfig
from etr_ros.database import PlaceMap
from etr_ros.errors import MapError
from etr_ros.loops import LoopDetector
from etr_ros.pipeline import PlaceRecognizer, Recognizer
from etr_ros.ros.main import main
from landmarks import Landmarks


def open_recognizer(path: Path | None, config: RobotConfig) -> Recognizer:
    networks = Landmarks(seed=1, measured=not config.sensor.depth_topic).networks
    if config.loop.enabled:
        return LoopDetector(networks, config, PlaceMap(path) if path else None)
    if path is None:
        raise MapError("no map is given")
    return PlaceRecognizer(PlaceMap(path), networks, config)


if __name__ == "__main__":
    sys.exit(main(open_map=open_recognizer))
