"""Where pictures come from: the interface of every source, and folders of image files."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from etr_ros import images
from etr_ros.errors import DataError, ImageError
from etr_ros.poses import PosedFile, poses_of_files, stamp_in_name
from etr_ros.types import Frame

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_SHOWN_NAMES = 5


class FrameSource(ABC):
    """Pictures of one drive or folder in the order in which they were taken; may be read more than once.

    A picture that cannot be used is left out and remembered: after reading, `notes()` tells what was lost. JPEGs are
    decoded smaller where their longer side still has `enough_px`, see `images.decode_reduced`.
    """

    enough_px = 0  # full size

    def __init__(self, expected: int | None, has_poses: bool) -> None:
        self.expected = expected  # pictures, before reading; None when that is not known
        self.has_poses = has_poses
        self.read = 0
        self.without_pose = 0
        self.skipped: list[str] = []  # "name: why"

    def __iter__(self) -> Iterator[Frame]:
        """Read from the start. Raises DataError when nothing can be read at all."""
        self.read = self.without_pose = 0
        self.skipped = []
        for frame in self._frames():
            self.read += 1
            self.without_pose += frame.pose is None
            yield frame
        if not self.read:
            raise DataError(
                f"no picture could be read of {self.describe()}" + "".join(f"; {note}" for note in self.notes())
            )

    def reject(self, frame: Frame, why: str) -> None:
        """Count a frame that was read, but turned out to be of no use, as skipped."""
        self.read -= 1
        self.without_pose -= frame.pose is None
        self.skipped.append(f"{frame.name}: {why}")

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """The usable pictures; those that are not go to `skipped`."""

    @abstractmethod
    def describe(self) -> str:
        """What is read, in one line."""

    def notes(self) -> list[str]:
        """What the user has to know about the pictures read so far, one line each; empty when all went well."""
        notes = []
        if self.skipped:
            more = len(self.skipped) - _SHOWN_NAMES
            shown = "; ".join(self.skipped[:_SHOWN_NAMES]) + (f"; and {more} more" if more > 0 else "")
            notes.append(f"{len(self.skipped)} of {self.read + len(self.skipped)} pictures were skipped: {shown}")
        if self.has_poses and self.without_pose:
            notes.append(f"{self.without_pose} of {self.read} pictures have no pose")
        return notes


class ImageFolder(FrameSource):
    """The image files directly in a folder, in natural order of their names (`frame_2` before `frame_10`).

    The stamp of a picture is what the pose file or its name states (`stamp_in_name`); without either,
    pictures count as taken one second apart from time 0.
    """

    def __init__(self, path: Path, poses: Path | None = None, session: str = "") -> None:
        """Raises DataError for a folder without pictures and for a pose file that does not fit."""
        self.path = path
        self.session = session or path.resolve().name
        self.files = _image_files(path)
        self.names = [file.name for file in self.files]
        super().__init__(len(self.files), has_poses=poses is not None)
        self.posed = (
            poses_of_files(poses, self.names)
            if poses is not None
            else [PosedFile(None, stamp_in_name(name)) for name in self.names]
        )

    def describe(self) -> str:
        return f"{len(self.files)} pictures in {self.path}" + (" with poses" if self.has_poses else "")

    def _frames(self) -> Iterator[Frame]:
        for number, (file, (pose, stamp_ns)) in enumerate(zip(self.files, self.posed, strict=True)):
            try:
                image, size = images.read(file, self.enough_px)
            except ImageError as error:
                self.skipped.append(str(error))
                continue
            stamp = number * 1_000_000_000 if stamp_ns is None else stamp_ns
            yield Frame(image, stamp, file.name, self.session, pose, full_size=size)


def image_folder(path: Path, poses: Path | None = None, session: str = "") -> ImageFolder:
    """The pictures of a folder. `poses` is TUM or CSV (see `poses_of_files`). Raises DataError."""
    return ImageFolder(path, poses, session)


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of pictures")
    files = sorted((entry for entry in folder.iterdir() if _is_image(entry)), key=lambda file: _natural(file.name))
    if not files:
        inside = sorted({f"{entry.parent.name}/" for entry in folder.glob("*/*") if _is_image(entry)})
        hint = f"; its subfolders {', '.join(inside[:_SHOWN_NAMES])} do: give one of them" if inside else ""
        raise DataError(f"{folder} has no pictures directly in it ({', '.join(IMAGE_ENDINGS)}){hint}")
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".") and path.is_file()


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that takes runs of digits as numbers."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)], name
