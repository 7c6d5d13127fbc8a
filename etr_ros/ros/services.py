"""What the node does when asked: swap the map, report it, localize now, save the session."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.parameter import Parameter
from std_msgs.msg import Empty

from etr_ros.errors import EtrError, ImageError, MapError
from etr_ros.ros import conversions
from etr_ros.ros.interfaces import GET_MAP_INFO, LOAD_MAP, LOCALIZE, SAVE_MAP, TRIGGER
from etr_ros_msgs.msg import PlaceMatch
from etr_ros_msgs.srv import GetMapInfo, LoadMap, Localize, SaveMap

if TYPE_CHECKING:
    from etr_ros.ros.node import PlaceRecognitionNode

LOCALIZE_TIMEOUT_S = 5.0
LOCALIZE_LONGEST_S = 3600.0


class Services:
    """Whatever goes wrong is told in the answer; the node goes on as it was."""

    def __init__(self, node: PlaceRecognitionNode) -> None:
        self._node = node
        self._soon = threading.Lock()
        # What may take long has a group, and so a thread, of its own: images and diagnostics go on meanwhile.
        for endpoint, answer in ((LOAD_MAP, self._load_map), (LOCALIZE, self._localize), (SAVE_MAP, self._save_map)):
            group = MutuallyExclusiveCallbackGroup()
            node.create_service(endpoint.type, endpoint.name, answer, callback_group=group)
        node.create_service(GET_MAP_INFO.type, GET_MAP_INFO.name, self._get_map_info)
        node.create_subscription(TRIGGER.type, TRIGGER.name, self._on_trigger, 10)

    def localize_soon(self) -> None:
        """Localize as the service does, without waiting for it; while that goes on, further calls change nothing."""
        if self._soon.acquire(blocking=False):
            threading.Thread(target=self._localize_and_tell, name="localize", daemon=True).start()

    def _on_trigger(self, _: Empty) -> None:
        self.localize_soon()

    def _localize_and_tell(self) -> None:
        log = self._node.get_logger()
        try:
            answer = self._localize(Localize.Request(), Localize.Response())
            if answer.localized:
                log.info(f"localized in {answer.elapsed_ms:.0f} ms ({answer.images} images)")
            else:
                log.warning(f"not localized: {answer.message}")
        finally:
            self._soon.release()

    def _load_map(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        node = self._node
        try:
            if node.recognizer is None:
                raise MapError("the node is not configured: set the parameter node.map and configure it")
            with node.answering:
                node.recognizer.load_map(_folder(request.path))
            node.set_parameters([Parameter("node.map", value=request.path)])
            response.success = True
        except Exception as error:  # the map in use stays
            response.message = node.health.last_error = node.explain(error)
            node.get_logger().error(f"cannot load the map: {response.message}")
        if node.recognizer is not None:
            response.info = conversions.to_map_info_message(node.recognizer.info)
        return response

    def _save_map(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        node = self._node
        try:
            if node.recognizer is None:
                raise MapError(f"the node is {node.phase}: configure it")
            response.info = conversions.to_map_info_message(node.recognizer.save_map(_folder(request.path)))
            response.success = True
            node.get_logger().info(f"saved {response.info.places} places to {response.info.path}")
        except Exception as error:
            response.message = node.health.last_error = node.explain(error)
            node.get_logger().error(f"cannot save the map: {response.message}")
        return response

    def _get_map_info(self, _: GetMapInfo.Request, response: GetMapInfo.Response) -> GetMapInfo.Response:
        node = self._node
        if node.recognizer is None:
            response.message = node.health.setup_error or f"no map is loaded: the node is {node.phase}"
        else:
            response.loaded = True
            response.info = conversions.to_map_info_message(node.recognizer.info)
        return response

    def _localize(self, request: Localize.Request, response: Localize.Response) -> Localize.Response:
        timeout_s = request.timeout_s or LOCALIZE_TIMEOUT_S
        started_s = time.perf_counter()
        try:
            if not 0 < timeout_s <= LOCALIZE_LONGEST_S:
                raise EtrError(f"timeout_s must be between 0 and {LOCALIZE_LONGEST_S:g} seconds, not {timeout_s:g}")
            backends = self._node.backends  # a deactivation takes it away from another thread
            if backends is not None:
                backends.ask()
            while not response.localized:
                match = self._next_match(started_s + timeout_s - time.perf_counter(), response.images)
                if match is None:  # it was on its way before the request, and no keyframe
                    continue
                response.success, response.images, response.match = True, response.images + 1, match
                response.localized = match.state == PlaceMatch.STATE_LOCALIZED
        except Exception as error:  # includes whatever the inference raised
            response.message = self._node.explain(error)
        response.elapsed_ms = (time.perf_counter() - started_s) * 1e3
        return response

    def _next_match(self, timeout_s: float, answered: int) -> PlaceMatch | None:
        """The answer to the next image. Raises EtrError after the timeout, `answered` images having been no use."""
        node, worker = self._node, self._node.worker
        if worker is None:
            raise EtrError(f"the node is {node.phase}: activate it")
        received = node.health.counters.received
        future = worker.next_answer()
        try:
            return future.result(max(timeout_s, 0.0))
        except concurrent.futures.TimeoutError:
            future.cancel()
            if answered:
                raise EtrError(f"none of {answered} images was recognised within the time") from None
            if node.health.counters.received == received:
                raise ImageError(node.why_silent(timeout_s)) from None
            raise EtrError(f"the image was not answered within {timeout_s:g} s: give a longer timeout_s") from None
        except concurrent.futures.CancelledError:
            raise EtrError("the node was deactivated before an image was answered") from None


def _folder(path: str) -> Path:
    if not path:
        raise MapError("no folder is given: name the folder of the map in `path`")
    return Path(path).expanduser()
