"""Features of real networks with the weights that are installed with the project."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from etr_ros import images
from etr_ros.config import Config, GeometryConfig
from etr_ros.errors import ConfigError, ImageError, WeightsError
from etr_ros.features import Extractor
from etr_ros.features.extractor import network_size
from etr_ros.types import Frame
from etr_ros.verify import inliers
from etr_ros.views import look


def textured(seed: int, width: int = 320, height: int = 240) -> NDArray[np.uint8]:
    """A made-up scene: rectangles and circles of many colours."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120, np.uint8)
    for _ in range(120):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + int(rng.integers(5, 50)), y + int(rng.integers(5, 50))), colour, -1)
        else:
            cv2.circle(image, (x, y), int(rng.integers(3, 20)), colour, -1)
    return image


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor.load(Config())


def test_features_are_what_their_type_promises(extractor: Extractor) -> None:
    features = extractor(textured(0))
    count = len(features)
    assert 100 < count <= 512
    assert features.keypoints.shape == (count, 2) and features.keypoints.dtype == np.float32
    assert (features.keypoints >= -0.5).all() and (features.keypoints <= [319.5, 239.5]).all()
    assert (np.diff(features.scores) <= 0).all()
    assert features.descriptors.shape == (count, extractor.spec.local_dim)
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-4)
    assert features.global_descriptor.shape == (extractor.spec.global_dim,)
    assert np.linalg.norm(features.global_descriptor) == pytest.approx(1, abs=1e-4)
    assert features.image_size == (320, 240)


def test_same_picture_same_features(extractor: Extractor) -> None:
    first, second = extractor(textured(0)), extractor(textured(0))
    for name in ("keypoints", "scores", "descriptors", "global_descriptor"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_batch_gives_what_single_pictures_give(extractor: Extractor) -> None:
    together = extractor.batch([textured(0), textured(1)])
    alone = extractor(textured(1))
    assert len(inliers(together[1], alone)) > 0.9 * len(alone)
    assert together[1].global_descriptor @ alone.global_descriptor > 0.999


def test_keypoints_follow_the_picture(extractor: Extractor) -> None:
    image = textured(0, 480, 360)
    a, b = extractor(image[:, 40:]), extractor(image[:, :440])
    matched = inliers(a, b)
    assert len(matched) > 80
    shift = b.keypoints[matched[:, 1]] - a.keypoints[matched[:, 0]]
    np.testing.assert_allclose(np.median(shift, axis=0), [40, 0], atol=1.0)  # one pixel of the network's grid


def test_keypoints_are_in_pixels_of_the_original_picture(extractor: Extractor) -> None:
    image = textured(0, 320, 240)
    large = cv2.resize(image, (1280, 960), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    a, b = extractor(image), extractor(large)
    matched = inliers(a, b)
    assert len(matched) > 50
    offset = (b.keypoints[matched[:, 1]] + 0.5) - 4 * (a.keypoints[matched[:, 0]] + 0.5)
    assert np.abs(np.median(offset, axis=0)).max() < 3


@pytest.mark.parametrize("size", [(33, 47), (101, 64), (640, 360), (48, 2000)])
def test_any_size(extractor: Extractor, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    assert extractor(image).image_size == size


def test_pictures_too_small_or_bare_are_refused(extractor: Extractor) -> None:
    with pytest.raises(ImageError, match="32 pixels a side"):
        extractor(np.zeros((31, 400, 3), np.uint8))
    with pytest.raises(ImageError, match="shows too little"):
        extractor(np.full((240, 320, 3), 128, np.uint8))


def test_network_sizes() -> None:
    assert network_size(640, 480, 640, 32) == (640, 480)
    assert network_size(7680, 4320, 640, 32) == (640, 352)
    assert network_size(64, 40, 640, 32) == (64, 32)
    assert network_size(10000, 40, 640, 32) == (640, 32)


def test_superpoint_runs_with_the_installed_weights() -> None:
    try:
        superpoint = Extractor.load(Config.from_dict({"extractor.name": "superpoint", "extractor.max_keypoints": 200}))
    except WeightsError as error:
        pytest.skip(str(error))
    features = superpoint(textured(0))
    assert features.descriptors.shape[1] == 256 and 50 < len(features) <= 200


def test_cuda_is_refused_where_there_is_none() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="cpu or auto"):
        Extractor.load(Config.from_dict({"compute.device": "cuda"}))


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError, match="made for another network"):
        Extractor.load(Config.from_dict({"extractor.weights": "vlad-xfeat"}))


def test_keypoints_of_a_picture_decoded_smaller_are_in_pixels_of_the_whole(extractor: Extractor) -> None:
    whole = cv2.resize(textured(0, 640, 480), (1280, 960), interpolation=cv2.INTER_CUBIC)
    jpeg = cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    small, full_size = images.decode_reduced(jpeg, extractor.spec.max_side_px)
    assert full_size == (1280, 960)
    seen = [
        look(extractor, frame, GeometryConfig()).features
        for frame in (Frame(images.decode(jpeg), 0), Frame(small, 0, full_size=full_size))
    ]
    assert seen[0].image_size == seen[1].image_size == (1280, 960)
    matched = inliers(*seen)
    assert len(matched) > 0.8 * len(seen[0])
    moved = seen[1].keypoints[matched[:, 1]] - seen[0].keypoints[matched[:, 0]]
    assert np.abs(np.median(moved, axis=0)).max() < 0.5
    assert seen[0].global_descriptor @ seen[1].global_descriptor > 0.98
