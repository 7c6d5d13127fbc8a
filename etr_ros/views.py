"""A frame in, what recognition and geometry read of it out."""

from __future__ import annotations

import dataclasses

from etr_ros import depth, stereo
from etr_ros.config import GeometryConfig
from etr_ros.features import Extractor
from etr_ros.types import Frame, View

DISPARITY_SIGMA_PX = 0.3


def look(extractor: Extractor, frame: Frame, config: GeometryConfig) -> View:
    """The features of a picture, in 3-D where its depth or the right picture of a stereo pair tells.

    Raises ImageError when no features can be computed, CameraError when depth or intrinsics do not fit the picture.
    """
    features, camera = extractor(frame.image), frame.camera
    if frame.full_size is not None:
        features = features.at_size(*frame.full_size)
    view = View(features, camera, frame.body_t_camera)
    if camera is None:
        return view
    camera.require_size(*features.image_size)
    if frame.depth_m is not None:
        return depth.attach(view, frame.depth_m, config.max_depth_m)
    if frame.right is not None:
        points = stereo.points_at(
            features.keypoints, frame.image, frame.right, camera, frame.baseline_m, config.max_depth_m
        )
        sigma = points[:, 2] ** 2 * DISPARITY_SIGMA_PX / (camera.fx * frame.baseline_m)
        return dataclasses.replace(view, features=dataclasses.replace(features, points_m=points, depth_sigma_m=sigma))
    return view
