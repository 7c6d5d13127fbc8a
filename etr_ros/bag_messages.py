"""The messages of one topic of a rosbag2 recording, with their stamps."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from rosbags.typesys import Stores, get_typestore

from etr_ros.bag_storage import Bag
from etr_ros.errors import DataError

_MESSAGES = get_typestore(Stores.ROS2_HUMBLE)  # the types read here are the same in every later distribution


class Stream:
    """The messages of a topic in the order of recording; may be read more than once.

    Messages that are damaged are left out and counted in `broken`.
    """

    def __init__(self, bag: Bag, topic: str, types: Collection[str], what: str) -> None:
        """Raises DataError when the bag has no such topic of one of these types; it names those that would do."""
        self.topic, self.type, self.broken = topic, topic_type(bag, topic, types, what), 0
        self._bag = bag

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Stamps in nanoseconds (of the header, or of receipt where it has none) and messages."""
        self.broken = 0
        for received_ns, data in self._bag.messages(self.topic):
            try:
                message = deserialize(data, self.type)
            except DataError:
                self.broken += 1
                continue
            yield stamp_ns(message) or received_ns, message

    def notes(self) -> list[str]:
        """What was lost, in at most one line."""
        return [f"{self.broken} messages of {self.topic} are damaged and were left out"] if self.broken else []


class Nearest:
    """Of messages in the order of time, the one nearest to each of a row of rising stamps."""

    def __init__(self, messages: Iterator[tuple[int, Any]]) -> None:
        self._messages = messages
        self._before: tuple[int, Any] | None = None
        self._after = next(messages, None)

    def at(self, at_ns: int) -> tuple[int, Any] | None:
        """Stamp and message; None when there are no messages."""
        while self._after is not None and self._after[0] <= at_ns:
            self._before, self._after = self._after, next(self._messages, None)
        around = [each for each in (self._before, self._after) if each is not None]
        return min(around, key=lambda each: abs(each[0] - at_ns), default=None)


def topic_type(bag: Bag, name: str, types: Collection[str], what: str) -> str:
    """The type of a topic, being one of `types`. Raises DataError that names the topics which would do."""
    topic = bag.topics.get(name)
    if topic is not None and topic.type in types:
        return topic.type
    fitting = [f"{name} ({topic.type})" for name, topic in bag.topics.items() if topic.type in types]
    others = (
        f"its {what} topics are: {', '.join(fitting)}" if fitting else f"it has no {what} topic ({', '.join(types)})"
    )
    if not name:
        raise DataError(f"say with --{what}-topic TOPIC what to read of the bag {bag.path}; {others}")
    problem = f"has no topic {name}" if topic is None else f"has {name} as {topic.type}, which is no {what}"
    raise DataError(f"the bag {bag.path} {problem}; {others}")


def deserialize(data: bytes, kind: str) -> Any:
    """The message in CDR bytes. Raises DataError when it is damaged."""
    try:
        return _MESSAGES.deserialize_cdr(data, kind)
    except Exception as error:  # the parser of damaged data raises anything
        raise DataError(f"the message is damaged ({error})") from error


def stamp_ns(message: Any) -> int:
    """The stamp of the header in nanoseconds; 0 when the message has none."""
    if not hasattr(message, "header"):
        return 0
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
