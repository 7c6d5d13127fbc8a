"""The node's process with a recogniser that needs no networks."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fake_recognizer import FakeRecognizer

from etr_ros.ros.main import main

if __name__ == "__main__":
    sys.exit(main(open_map=FakeRecognizer.open))
