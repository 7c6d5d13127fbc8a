"""Pictures: every accepted form becomes BGR, everything else one clear line."""

from __future__ import annotations

import array
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from etr_ros import images
from etr_ros.errors import ImageError

HEIGHT, WIDTH = 40, 64


def smooth_picture() -> images.Image:
    """Slow colour ramps: survive JPEG, YUV 4:2:2 and demosaicing nearly unchanged."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture: images.Image = np.stack([columns * 3, rows * 5, 255 - columns * 3], axis=2).astype(np.uint8)
    return picture


def encoded(extension: str, image: NDArray[Any] | None = None) -> bytes:
    return bytes(cv2.imencode(extension, smooth_picture() if image is None else image)[1])


def from_raw(encoding: str, pixels: NDArray[Any], padding: int = 0, big: bool = False) -> images.Image:
    height, width = pixels.shape[:2]
    rows = np.frombuffer(np.ascontiguousarray(pixels).tobytes(), np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return images.from_raw(encoding, height, width, rows.shape[1], rows.tobytes(), big)


def bayer(image: images.Image, pattern: str) -> images.Image:
    """The mosaic that a sensor with `pattern` (top left 2x2, in reading order) sees."""
    mosaic = np.empty(image.shape[:2], np.uint8)
    for position, letter in enumerate(pattern):
        row, column = divmod(position, 2)
        mosaic[row::2, column::2] = image[row::2, column::2, "bgr".index(letter)]
    return mosaic


def close(image: images.Image, expected: images.Image, tolerance: int = 6) -> bool:
    """Equal up to `tolerance` grey levels, away from the border."""
    difference = np.abs(image.astype(int) - expected.astype(int))[2:-2, 2:-2]
    return bool(difference.max() <= tolerance)


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".webp", ".jpg"])
def test_image_files_are_decoded_to_bgr(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{extension}"
    path.write_bytes(encoded(extension))
    image = images.read(path).image
    assert image.dtype == np.uint8 and image.shape == (HEIGHT, WIDTH, 3)
    assert close(image, smooth_picture(), tolerance=25)


@pytest.mark.parametrize(
    ("encoding", "to_encoding"),
    [
        ("bgr8", None),
        ("8UC3", None),
        ("rgb8", cv2.COLOR_BGR2RGB),
        ("bgra8", cv2.COLOR_BGR2BGRA),
        ("8UC4", cv2.COLOR_BGR2BGRA),
        ("rgba8", cv2.COLOR_BGR2RGBA),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings_come_back_exactly(encoding: str, to_encoding: int | None, padding: int) -> None:
    picture = smooth_picture()
    pixels = picture if to_encoding is None else cv2.cvtColor(picture, to_encoding)
    assert np.array_equal(from_raw(encoding, pixels, padding), picture)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_fills_the_three_channels(encoding: str) -> None:
    grey = smooth_picture()[:, :, 0]
    assert np.array_equal(from_raw(encoding, grey), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_colours_are_where_ros_says(pattern: str) -> None:
    picture = smooth_picture()
    assert close(from_raw(f"bayer_{pattern}8", bayer(picture, pattern)), picture)


@pytest.mark.parametrize("pattern", ["rggb", "grbg"])
def test_sixteen_bit_bayer_keeps_the_colours_apart(pattern: str) -> None:
    red = np.full((HEIGHT, WIDTH, 3), (0, 0, 200), np.uint8)
    image = from_raw(f"bayer_{pattern}16", bayer(red, pattern).astype(np.uint16) * 16)
    assert image[20, 20, 2] > 200 and image[20, 20, :2].max() < 20


@pytest.mark.parametrize(
    ("encoding", "luma_first"),
    [("yuv422", 0), ("uyvy", 0), ("yuv422_yuy2", 1), ("yuyv", 1)],
)
def test_yuv_422(encoding: str, luma_first: int) -> None:
    picture = smooth_picture()
    to_yuv = np.array([[0.098, 0.504, 0.257], [0.439, -0.291, -0.148], [-0.071, -0.368, 0.439]])  # BT.601
    yuv = np.rint(picture @ to_yuv.T + (16, 128, 128)).astype(np.uint8)
    pixels = np.empty((HEIGHT, WIDTH, 2), np.uint8)
    luma, chroma = (0, 1) if luma_first else (1, 0)
    pixels[:, :, luma] = yuv[:, :, 0]
    pixels[:, 0::2, chroma] = yuv[:, 0::2, 1]
    pixels[:, 1::2, chroma] = yuv[:, 0::2, 2]
    assert close(from_raw(encoding, pixels), picture)
    with pytest.raises(ImageError, match="even width"):
        from_raw(encoding, pixels[:, :-1])


@given(
    bits=st.integers(9, 16),
    big=st.booleans(),
    encoding=st.sampled_from(["mono16", "16UC1"]),
)
def test_sixteen_bit_pictures_use_the_whole_range(bits: int, big: bool, encoding: str) -> None:
    ramp = np.tile(np.linspace(0, 2**bits - 1, WIDTH).astype(np.uint16), (HEIGHT, 1))
    image = from_raw(encoding, ramp.astype(">u2" if big else "<u2"), big=big)
    assert image.min() == 0 and image.max() == 255
    assert (np.diff(image[0, :, 0].astype(int)) >= 0).all()


def test_constant_sixteen_bit_picture_is_black() -> None:
    assert not from_raw("mono16", np.full((HEIGHT, WIDTH), 4000, np.uint16)).any()


def test_sixteen_bit_png_and_alpha_png() -> None:
    deep = images.decode(encoded(".png", smooth_picture().astype(np.uint16) * 16))
    assert deep.dtype == np.uint8 and deep.shape == (HEIGHT, WIDTH, 3) and deep.max() > 240
    assert images.decode(encoded(".png", cv2.cvtColor(smooth_picture(), cv2.COLOR_BGR2BGRA))).shape[2] == 3


def test_raw_data_may_be_any_buffer() -> None:
    picture = smooth_picture()
    raw = picture.tobytes()
    buffers: tuple[Any, ...] = (
        raw,
        bytearray(raw),
        memoryview(raw),
        array.array("B", raw),
        picture.ravel(),
    )
    for data in buffers:
        image = images.from_raw("bgr8", HEIGHT, WIDTH, WIDTH * 3, data)
        assert np.array_equal(image, picture)
        assert image.flags.writeable


@pytest.mark.parametrize(
    ("extension", "keep"),
    [
        (".jpg", 0.6),
        (".jpg", 0.99),
        (".jpg", 0.02),
        (".png", 0.6),
        (".bmp", 0.5),
        (".webp", 0.5),
    ],
)
def test_truncated_files_are_refused(extension: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    data = encoded(extension, noise)
    with pytest.raises(ImageError, match=r"truncated|damaged|cannot be decoded"):
        images.decode(data[: int(len(data) * keep)])


def test_truncated_jpeg_with_a_whole_thumbnail_is_refused() -> None:
    data, thumbnail = encoded(".jpg"), encoded(".jpg")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    with_thumbnail = data[:2] + segment + data[2:]
    assert images.decode(with_thumbnail + b"\0" * 30).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageError, match="truncated"):
        images.decode(with_thumbnail[:-50])


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"not a picture at all"])
def test_bytes_that_are_no_picture(data: bytes) -> None:
    with pytest.raises(ImageError):
        images.decode(data)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF"]),
)
def test_garbage_never_gets_past_the_decoder(data: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        images.decode(start + data)


@pytest.mark.parametrize(("height", "width"), [(0, 0), (1, 1), (31, 64), (9000, 8000)])
def test_sizes_out_of_range_are_named(height: int, width: int) -> None:
    with pytest.raises(ImageError, match=f"{width}x{height} px"):
        images.from_raw("mono8", height, width, width, bytes(0))


def test_too_large_a_file_is_refused_before_it_is_decoded() -> None:
    png = bytearray(encoded(".png"))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    jpeg = bytearray(encoded(".jpg"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    for data in (png, jpeg):
        with pytest.raises(ImageError, match="60000x60000 px; at most 64 megapixels"):
            images.decode(data)


def test_a_picture_of_floats_is_refused_without_noise_of_the_decoder(capfd: pytest.CaptureFixture[str]) -> None:
    _, tiff = cv2.imencode(".tif", np.full((HEIGHT, WIDTH), 0.5, np.float32))
    with pytest.raises(ImageError, match="no picture that can be decoded"):
        images.decode(tiff.tobytes())
    assert capfd.readouterr().err == ""


def test_an_8k_picture_is_accepted() -> None:
    assert images.from_raw("mono8", 4320, 7680, 7680, bytes(7680 * 4320)).shape == (
        4320,
        7680,
        3,
    )


def test_unknown_encoding_lists_the_known_ones() -> None:
    with pytest.raises(ImageError, match=r"unknown image encoding '32FC1'.*bgr8.*bayer_rggb8"):
        images.from_raw("32FC1", HEIGHT, WIDTH, WIDTH * 4, bytes(HEIGHT * WIDTH * 4))


def test_contradicting_fields() -> None:
    with pytest.raises(ImageError, match="step is 100"):
        images.from_raw("rgb8", HEIGHT, WIDTH, 100, bytes(HEIGHT * WIDTH * 3))
    with pytest.raises(ImageError, match="the image has 10"):
        images.from_raw("rgb8", HEIGHT, WIDTH, WIDTH * 3, bytes(10))
    with pytest.raises(ImageError, match="the image has 10"):
        images.from_raw("rgb8", HEIGHT, WIDTH, 2**31, bytes(10))


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nothing\.jpg"):
        images.read(tmp_path / "nothing.jpg")
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(ImageError, match=r"^bad\.png: "):
        images.read(tmp_path / "bad.png")


def large(width: int, height: int) -> images.Image:
    """Slow ramps of any size."""
    rows, columns = np.mgrid[0:height, 0:width]
    ramps = [columns * 255 // width, rows * 255 // height, 255 - columns * 255 // width]
    return np.stack(ramps, axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("width", "height", "enough", "divisor"),
    [
        (640, 480, 640, 1),
        (1279, 960, 640, 1),
        (1280, 960, 640, 2),
        (1283, 725, 640, 2),
        (480, 1400, 640, 2),
        (2560, 1440, 640, 4),
        (2560, 1440, 1280, 2),
        (2560, 1440, 0, 1),
        (5200, 300, 640, 8),
        (5200, 100, 640, 2),  # a strip stays 32 px high
    ],
)
def test_large_jpegs_are_decoded_smaller(width: int, height: int, enough: int, divisor: int) -> None:
    whole = large(width, height)
    image, full_size = images.decode_reduced(encoded(".jpg", whole), enough)
    assert full_size == (None if divisor == 1 else (width, height))
    assert image.shape == (-(-height // divisor), -(-width // divisor), 3)
    assert close(image, cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA))


def test_what_is_no_jpeg_keeps_its_size() -> None:
    image, full_size = images.decode_reduced(encoded(".png", large(1400, 900)), 640)
    assert (image.shape, full_size) == ((900, 1400, 3), None)


def test_a_large_jpeg_held_upright_has_its_turned_size() -> None:
    orientation = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # turn by 90 degrees
    jpeg = encoded(".jpg", large(1400, 900))
    turned = jpeg[:2] + b"\xff\xe1" + (len(orientation) + 2).to_bytes(2, "big") + orientation + jpeg[2:]
    image, full_size = images.decode_reduced(turned, 640)
    assert (image.shape, full_size) == ((700, 450, 3), (900, 1400))
    assert images.decode(turned).shape == (1400, 900, 3)


@given(st.integers(0, 10**6), st.sampled_from([0, 64, 200]))
def test_damaged_large_jpegs_give_a_picture_or_one_clear_error(seed: int, enough: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(".jpg", large(420, 300)))
    for _ in range(3):
        data[int(rng.integers(2, len(data)))] = int(rng.integers(256))
    try:
        image, full_size = images.decode_reduced(data, enough)
    except ImageError:
        return
    assert image.dtype == np.uint8 and image.ndim == 3
    assert full_size is None or max(full_size) >= 2 * max(image.shape) - 2
