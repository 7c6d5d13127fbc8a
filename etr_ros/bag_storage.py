"""Raw messages out of rosbag2 recordings (sqlite3, mcap, split, compressed), also out of damaged ones.

A robot that loses power leaves a bag without its metadata, an mcap file without its index, or a database cut short.
What lies before the damage is read all the same, and `Bag.damage` says what happened.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol

import yaml
from rosbags.rosbag2 import Reader

from etr_ros.errors import DataError

STORAGE_ENDINGS = (".mcap", ".db3")

RawMessage = tuple[int, bytes]  # received at (nanoseconds since epoch), CDR


class Topic(NamedTuple):
    """What a bag says about one topic; `messages` is None when the bag is damaged and does not say it."""

    type: str
    messages: int | None


class _Part(Protocol):
    """One readable piece of a bag."""

    topics: dict[str, Topic]

    def messages(self, topic: str) -> Iterator[RawMessage]: ...


class Bag:
    """A recording: a folder, or a single .mcap or .db3 file."""

    def __init__(self, path: Path) -> None:
        """Raises DataError when `path` is no rosbag2 or nothing of it can be read."""
        if path.suffix == ".bag":
            raise DataError(f"{path} is a ROS 1 bag: convert it with `rosbags-convert --src {path} --dst NEW_BAG`")
        if not path.exists():
            raise DataError(f"there is no bag at {path}")
        self.path = path
        self.damage: dict[str, str] = {}  # file name -> why
        try:
            self._parts: list[_Part] = [_IntactPart(path)]
        except Exception as error:  # parsers of damaged data raise anything
            self._parts = self._salvage(error)
        self.topics = self._merged_topics()

    def messages(self, topic: str) -> Iterator[RawMessage]:
        """The messages of a topic as recorded. Where a file is damaged, goes on with the next and fills `damage`."""
        for part in self._parts:
            if topic not in part.topics:
                continue
            try:
                yield from part.messages(topic)
            except Exception as error:  # parsers of damaged data raise anything
                self.damage.setdefault(str(part), _one_line(error))

    def _salvage(self, cause: Exception) -> list[_Part]:
        files = (
            [self.path]
            if self.path.is_file()
            else sorted(self.path.iterdir(), key=lambda file: (len(file.name), file.name))
        )
        files = [file for file in files if file.suffix in STORAGE_ENDINGS]
        parts: list[_Part] = []
        for file in files:
            try:
                parts.append(_IntactPart(file))
                continue
            except Exception as error:  # parsers of damaged data raise anything
                self.damage[file.name] = _one_line(error)
            with suppress(Exception):
                parts.append(_CutDatabase(file) if file.suffix == ".db3" else _IntactPart(_CutMcap(file)))
        if not files:
            raise DataError(
                f"{self.path} is no rosbag2 recording: it has no .mcap or .db3 file that can be read"
            ) from cause
        if not any(part.topics for part in parts):
            raise DataError(f"nothing can be read of the bag {self.path}: {_one_line(cause)}") from cause
        return parts

    def _merged_topics(self) -> dict[str, Topic]:
        topics: dict[str, Topic] = {}
        for part in self._parts:
            for name, topic in part.topics.items():
                before = topics.get(name, Topic(topic.type, 0)).messages
                topics[name] = Topic(
                    topic.type, None if before is None or topic.messages is None else before + topic.messages
                )
        if self.damage:
            promised = _counts_in_metadata(self.path)
            topics = {name: Topic(topic.type, promised.get(name)) for name, topic in topics.items()}
        return topics


class _IntactPart:
    """A bag folder or storage file that rosbags reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with Reader(path) as reader:
            self.topics = {name: Topic(info.msgtype or "", info.msgcount) for name, info in reader.topics.items()}

    def __str__(self) -> str:
        return self._path.name

    def messages(self, topic: str) -> Iterator[RawMessage]:
        with Reader(self._path) as reader:
            connections = [connection for connection in reader.connections if connection.topic == topic]
            for _, received_ns, data in reader.messages(connections):
                yield received_ns, data


class _CutDatabase:
    """A sqlite3 storage file that is shorter than it says: rows in the order of writing, up to the damage."""

    def __init__(self, path: Path) -> None:
        self._path = path
        connection = self._connect()
        try:
            rows = connection.execute("SELECT id, name, type FROM topics").fetchall()
        finally:
            connection.close()
        self._ids = {name: number for number, name, _ in rows}
        self.topics = {name: Topic(kind, None) for _, name, kind in rows}

    def __str__(self) -> str:
        return self._path.name

    def messages(self, topic: str) -> Iterator[RawMessage]:
        connection = self._connect()
        try:
            query = "SELECT timestamp, data FROM messages NOT INDEXED WHERE topic_id = ? ORDER BY id"
            yield from connection.execute(query, (self._ids[topic],))
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        connection.execute("PRAGMA writable_schema = ON")  # SQLite's own way to open a file with pages missing
        return connection


class _CutMcap(PosixPath):
    """The path of an mcap file without an end: opens as its complete records followed by an empty footer."""

    MAGIC = b"\x89MCAP0\r\n"
    FOOTER = b"\x02" + (20).to_bytes(8, "little") + bytes(20) + MAGIC  # no summary: rosbags scans the records

    def open(self, *_: Any, **__: Any) -> BinaryIO:  # type: ignore[override]
        file = io.FileIO(self)
        return io.BufferedReader(_WithTail(file, _end_of_complete_records(file), self.FOOTER))


class _WithTail(io.RawIOBase):
    """The first `length` bytes of a file, then `tail`."""

    def __init__(self, file: io.FileIO, length: int, tail: bytes) -> None:
        self._file, self._length, self._tail, self._at = file, length, tail, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length + len(self._tail)}[whence]
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at < self._length:
            self._file.seek(self._at)
            data = self._file.read(min(len(buffer), self._length - self._at))
        else:
            data = self._tail[self._at - self._length :][: len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _end_of_complete_records(file: BinaryIO | io.FileIO) -> int:
    """Where the last complete data record of an mcap file ends (records: 1 byte kind, 8 bytes length, content)."""
    size = file.seek(0, io.SEEK_END)
    end = len(_CutMcap.MAGIC)
    while end + 9 <= size:
        file.seek(end)
        head = file.read(9)
        record_end = end + 9 + int.from_bytes(head[1:], "little")
        if head[0] in (0x02, 0x0F) or record_end > size:  # footer, end of data
            break
        end = record_end
    return end


def _counts_in_metadata(path: Path) -> dict[str, int]:
    """Messages per topic that the bag had when it was whole; empty when it does not say."""
    try:
        info = yaml.safe_load((path / "metadata.yaml").read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        return {
            entry["topic_metadata"]["name"]: int(entry["message_count"]) for entry in info["topics_with_message_count"]
        }
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return {}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
