"""Pictures as they come (files, compressed or raw ROS images) -> (H, W, 3) uint8 in BGR order.

Pictures of 16 bits per channel are stretched linearly so that their 1st and 99th percentile become 0 and 255:
cameras put 10, 12 or 16 valid bits into such pictures and do not say how many.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import ImageError

if TYPE_CHECKING:
    from array import array

    Buffer = bytes | bytearray | memoryview | array[int] | NDArray[np.uint8]

Image = NDArray[np.uint8]

MIN_SIDE_PX = 32
MAX_PIXELS = 64_000_000
_REDUCED = {
    1: cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a raw encoding lies in memory, and OpenCV's conversion to BGR (None: it is BGR)."""

    dtype: str
    channels: int
    to_bgr: int | None


_LAYOUTS = {
    "bgr8": _Layout("u1", 3, None),
    "rgb8": _Layout("u1", 3, cv2.COLOR_RGB2BGR),
    "bgra8": _Layout("u1", 4, cv2.COLOR_BGRA2BGR),
    "rgba8": _Layout("u1", 4, cv2.COLOR_RGBA2BGR),
    "mono8": _Layout("u1", 1, cv2.COLOR_GRAY2BGR),
    "mono16": _Layout("u2", 1, cv2.COLOR_GRAY2BGR),
    "8UC1": _Layout("u1", 1, cv2.COLOR_GRAY2BGR),
    "8UC3": _Layout("u1", 3, None),
    "8UC4": _Layout("u1", 4, cv2.COLOR_BGRA2BGR),
    "16UC1": _Layout("u2", 1, cv2.COLOR_GRAY2BGR),
    "yuv422": _Layout("u1", 2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": _Layout("u1", 2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": _Layout("u1", 2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": _Layout("u1", 2, cv2.COLOR_YUV2BGR_YUY2),
    # OpenCV names a Bayer pattern after its second row and column, ROS after its first.
    **{
        f"bayer_{pattern}{bits}": _Layout(f"u{bits // 8}", 1, to_bgr)
        for bits in (8, 16)
        for pattern, to_bgr in {
            "rggb": cv2.COLOR_BayerBG2BGR,
            "bggr": cv2.COLOR_BayerRG2BGR,
            "gbrg": cv2.COLOR_BayerGR2BGR,
            "grbg": cv2.COLOR_BayerGB2BGR,
        }.items()
    },
}

RAW_ENCODINGS = tuple(_LAYOUTS)

cv2.setLogLevel(0)  # a picture that cannot be decoded is told once, by ImageError


class Picture(NamedTuple):
    """A picture, and where it was decoded smaller the width and height that it was taken with."""

    image: Image
    full_size: tuple[int, int] | None


def read(path: Path, enough_px: int = 0) -> Picture:
    """The picture in a file, as `decode_reduced`. Raises ImageError when it cannot be read or decoded."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    try:
        return decode_reduced(data, enough_px)
    except ImageError as error:
        raise ImageError(f"{path.name}: {error}") from error


def decode(data: Buffer) -> Image:
    """The picture in the bytes of an image file (JPEG, PNG, ...), turned upright when it says how it was held.

    Alpha is dropped. Raises ImageError when the bytes are no picture, end too early, or hold a picture
    that is too small or too large.
    """
    return decode_reduced(data, 0).image


def decode_reduced(data: Buffer, enough_px: int) -> Picture:
    """As `decode`; a JPEG at a half, a quarter or an eighth of its size when its longer side still has `enough_px`.

    With 0 every picture is decoded at its full size. Raises ImageError.
    """
    raw = bytes(data)
    if not raw:
        raise ImageError("the picture is empty (0 bytes)")
    size = _check_header(raw)
    divisor = 1 if size is None else _divisor(size, enough_px)
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), _REDUCED[divisor])
    except cv2.error as error:
        raise ImageError(f"the picture cannot be decoded: {error.err}") from error
    if image is None:
        raise ImageError(
            "the bytes are no picture that can be decoded (JPEG, PNG, BMP, WebP, TIFF), or they are damaged"
        )
    height, width = image.shape[:2]
    if size is None or divisor == 1:
        _check_size(width, height)
        return Picture(_as_8_bit(image), None)
    is_turned = (width, height) != tuple(-(-side // divisor) for side in size)
    return Picture(_as_8_bit(image), size[::-1] if is_turned else size)


def _divisor(size: tuple[int, int], enough_px: int) -> int:
    """The largest of 1, 2, 4 and 8 that leaves a picture as large as it must be."""
    fits = [each for each in _REDUCED if max(size) >= each * enough_px > 0 and min(size) >= each * MIN_SIDE_PX]
    return max(fits, default=1)


def from_message(message: Any, enough_px: int = 0) -> Picture:
    """The picture in a `sensor_msgs` Image or CompressedImage, of whatever library, as `decode_reduced`.

    Raises ImageError.
    """
    if not hasattr(message, "encoding"):
        return decode_reduced(message.data, enough_px)
    image = from_raw(
        message.encoding, message.height, message.width, message.step, message.data, bool(message.is_bigendian)
    )
    return Picture(image, None)


def from_raw(encoding: str, height: int, width: int, step: int, data: Buffer, is_bigendian: bool = False) -> Image:
    """The picture in the fields of a raw ROS image (`sensor_msgs/Image`).

    `step` is the length of a row in bytes, padding included. Encodings are `RAW_ENCODINGS`.
    Raises ImageError for an unknown encoding, a size out of range, or fields that contradict each other.
    """
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise ImageError(f"unknown image encoding '{encoding}'; supported are: {', '.join(RAW_ENCODINGS)}")
    _check_size(width, height)
    dtype = np.dtype(layout.dtype).newbyteorder(">" if is_bigendian else "<")
    row_bytes = width * layout.channels * dtype.itemsize
    values = np.frombuffer(data, np.uint8)
    if step < row_bytes:
        raise ImageError(f"a row of {width} px in {encoding} takes {row_bytes} bytes, but the image's step is {step}")
    if len(values) < step * height:
        raise ImageError(f"{height} rows of {step} bytes make {step * height} bytes, but the image has {len(values)}")
    if layout.channels == 2 and width % 2:
        raise ImageError(f"{encoding} needs an even width, not {width} px")
    rows = values[: step * height].reshape(height, step)[:, :row_bytes]
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, layout.channels)
    pixels = _as_8_bit(pixels)
    return pixels.copy() if layout.to_bgr is None else np.asarray(cv2.cvtColor(pixels, layout.to_bgr), np.uint8)


def _as_8_bit(image: NDArray[Any]) -> Image:
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if image.dtype.kind != "u":
        raise ImageError(f"the picture has {image.dtype} values; only 8 and 16 bit whole numbers are supported")
    low, high = np.percentile(image[::5, ::5], (1, 99))  # an odd stride meets all colours of a Bayer pattern
    scaled = (image.astype(np.float32) - low) * (255.0 / max(high - low, 1.0))
    return np.asarray(scaled.clip(0, 255), np.uint8)


def _check_size(width: int, height: int) -> None:
    if width < MIN_SIDE_PX or height < MIN_SIDE_PX:
        raise ImageError(f"the picture is {width}x{height} px; at least {MIN_SIDE_PX}x{MIN_SIDE_PX} px are needed")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the picture is {width}x{height} px; at most {MAX_PIXELS // 1_000_000} megapixels are accepted"
        )


def _check_header(data: bytes) -> tuple[int, int] | None:
    """Refuse a JPEG or PNG by its own words before memory is spent on it, and one that ends too early.

    Returns the width and height of a JPEG as they are stored; None for all else.
    """
    if data.startswith(b"\xff\xd8"):
        return _check_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
        if not _has_end(data):
            raise ImageError("the PNG is truncated or damaged")
    return None


def _has_end(png: bytes) -> bool:
    """Whether the chunks of a PNG lead to its end; the decoder takes their lengths for granted."""
    start = 8
    while start + 12 <= len(png):
        if png[start + 4 : start + 8] == b"IEND":
            return True
        start += 12 + int.from_bytes(png[start : start + 4], "big")
    return False


def _check_jpeg(data: bytes) -> tuple[int, int] | None:
    """Walk the segments to the start of the scan; no end-of-image marker can hide in what follows. Returns the size."""
    start, size = 2, None
    while start + 9 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        if marker == 0xFF:  # fill byte
            start += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (
            0xC4,
            0xC8,
            0xCC,
        ):  # start of frame
            height, width = (int.from_bytes(data[start + at : start + at + 2], "big") for at in (5, 7))
            _check_size(width, height)
            size = width, height
        if marker == 0xDA:  # start of scan
            if data.find(b"\xff\xd9", start) >= 0:
                return size
            break
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    raise ImageError("the JPEG is truncated")
