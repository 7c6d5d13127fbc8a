"""ROS nodes in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from etr_ros.errors import EtrError
from examples.simulator.bag import IMAGE_TOPIC

ROOT = Path(__file__).resolve().parents[2]
ETR_NODE = str(Path(sys.executable).with_name("etr_node"))
SHUTDOWN_S = 15.0


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


@contextmanager
def running(command: Sequence[str], parameters: Mapping[str, str], log: Path) -> Iterator[Callable[[], None]]:
    """A node with its ROS parameters, its output going to `log`; it is ended with the context, whatever happens.

    Gives a function that raises EtrError when the node has ended by itself; so does the end of the context.
    """
    arguments = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--ros-args", *arguments], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )

        def require_alive() -> None:
            if process.poll() is not None:
                raise EtrError(f"a node ended early with code {process.returncode}, see {log}")

        try:
            yield require_alive
            require_alive()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(SHUTDOWN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
