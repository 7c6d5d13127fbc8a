"""ROS nodes in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from etr_ros.errors import EtrError
from examples.simulator.bag import DEPTH_TOPIC, IMAGE_TOPIC, INFO_TOPIC

ROOT = Path(__file__).resolve().parents[2]
ETR_NODE = str(Path(sys.executable).with_name("etr_node"))
SHUTDOWN_S = 15.0
DEPTH_CAMERA = {  # parameters of the node for the simulated robot with depth
    "node.autostart": "true",
    "node.image_topic": IMAGE_TOPIC,
    "node.compressed": "true",
    "sensor.camera_info_topic": INFO_TOPIC,
    "sensor.depth_topic": DEPTH_TOPIC,
    "sensor.camera_mount": "'0.2 0.0 0.3 0.0 0.0 0.0'",
}


@contextmanager
def running_node(place_map: Path, log: Path) -> Iterator[None]:
    """The node on `place_map`, listening to the camera of the simulated robot; its output goes to `log`."""
    parameters = {
        "node.autostart": "true",
        "node.map": str(place_map.resolve()),
        "node.image_topic": IMAGE_TOPIC,
        "node.compressed": "true",
    }
    with running([ETR_NODE], parameters, log):
        yield


class NodeProcess:
    """A node that runs; its output goes to `log`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    def require_alive(self) -> None:
        """Raises EtrError when the node has ended by itself."""
        if self._process.poll() is not None:
            raise EtrError(f"a node ended early with code {self._process.returncode}, see {self._log}")

    @property
    def cpu_ms(self) -> float:
        """Processor time that the node has taken so far, in milliseconds (Linux)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return 1e3 * sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime


@contextmanager
def running(command: Sequence[str], parameters: Mapping[str, str], log: Path) -> Iterator[NodeProcess]:
    """A node with its ROS parameters, its output going to `log`; it is ended with the context, whatever happens.

    Raises EtrError at the end of the context when the node has ended by itself.
    """
    arguments = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--ros-args", *arguments], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
        node = NodeProcess(process, log)
        try:
            yield node
            node.require_alive()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(SHUTDOWN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
