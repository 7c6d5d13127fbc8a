"""The three services: swap the map, report it, localize now."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.parameter import Parameter

from etr_ros.errors import EtrError, ImageError, MapError
from etr_ros.ros import conversions
from etr_ros.ros.interfaces import GET_MAP_INFO, LOAD_MAP, LOCALIZE
from etr_ros_msgs.msg import PlaceMatch
from etr_ros_msgs.srv import GetMapInfo, LoadMap, Localize

if TYPE_CHECKING:
    from etr_ros.ros.node import PlaceRecognitionNode

LOCALIZE_TIMEOUT_S = 5.0
LOCALIZE_LONGEST_S = 3600.0


class Services:
    """Whatever goes wrong is told in the answer; the node goes on as it was."""

    def __init__(self, node: PlaceRecognitionNode) -> None:
        self._node = node
        # What may take long has a group, and so a thread, of its own: images and diagnostics go on meanwhile.
        for endpoint, answer in ((LOAD_MAP, self._load_map), (LOCALIZE, self._localize)):
            group = MutuallyExclusiveCallbackGroup()
            node.create_service(endpoint.type, endpoint.name, answer, callback_group=group)
        node.create_service(GET_MAP_INFO.type, GET_MAP_INFO.name, self._get_map_info)

    def _load_map(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        node = self._node
        try:
            if node.recognizer is None:
                raise MapError("the node is not configured: set the parameter node.map and configure it")
            node.recognizer = node.open(request.path)
            node.set_parameters([Parameter("node.map", value=request.path)])
            response.success = True
        except Exception as error:  # the map in use stays
            response.message = node.health.last_error = node.explain(error)
            node.get_logger().error(f"cannot load the map: {response.message}")
        if node.recognizer is not None:
            response.info = conversions.to_map_info_message(node.recognizer.info)
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
        try:
            response.match = self._next_match(request.timeout_s or LOCALIZE_TIMEOUT_S)
            response.success = True
        except Exception as error:  # includes whatever the inference raised
            response.message = self._node.explain(error)
        return response

    def _next_match(self, timeout_s: float) -> PlaceMatch:
        node, worker = self._node, self._node.worker
        if not 0 < timeout_s <= LOCALIZE_LONGEST_S:
            raise EtrError(f"timeout_s must be between 0 and {LOCALIZE_LONGEST_S:g} seconds, not {timeout_s:g}")
        if worker is None:
            raise EtrError(f"the node is {node.phase}: activate it")
        received = node.health.counters.received
        future = worker.next_answer()
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            if node.health.counters.received == received:
                raise ImageError(node.why_silent(timeout_s)) from None
            raise EtrError(f"the image was not answered within {timeout_s:g} s: give a longer timeout_s") from None
        except concurrent.futures.CancelledError:
            raise EtrError("the node was deactivated before an image was answered") from None
