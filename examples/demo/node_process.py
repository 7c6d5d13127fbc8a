"""The node in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etr_ros.errors import EtrError
from examples.simulator.bag import IMAGE_TOPIC

SHUTDOWN_S = 15.0


@contextmanager
def running_node(place_map: Path, log: Path) -> Iterator[None]:
    """The node on `place_map`, listening to the camera of the simulated robot; its output goes to `log`."""
    parameters = {
        "node.autostart": "true",
        "node.map": place_map,
        "node.image_topic": IMAGE_TOPIC,
        "node.compressed": "true",
    }
    arguments = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
    command = [str(Path(sys.executable).with_name("etr_node")), "--ros-args", *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            alive = process.poll() is None
            process.send_signal(signal.SIGINT)
            try:
                process.wait(SHUTDOWN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    if not alive:
        raise EtrError(f"the node ended early with code {process.returncode}, see {log}")
