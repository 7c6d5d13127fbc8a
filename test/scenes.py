"""Made-up pairs of views of one scene, with known relative pose, noise and wrong matches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from etr_ros.camera import Camera
from etr_ros.transforms import OPTICAL, compose, exp, from_matrix, inverse, rotation, to_matrix
from etr_ros.types import Features, Pose, View

PLAIN = Camera.create(640, 480, (450, 0, 320, 0, 450, 240, 0, 0, 1), "plumb_bob", ())
PLUMB_BOB = Camera.create(640, 480, (450, 0, 310, 0, 455, 245, 0, 0, 1), "plumb_bob", (-0.25, 0.08, 1e-3, -5e-4, 0))
FISHEYE = Camera.create(640, 480, (300, 0, 325, 0, 300, 235, 0, 0, 1), "equidistant", (0.02, -0.01, 0.003, 0))
MOUNT = compose(Pose((0.3, -0.05, 0.4)), OPTICAL)
DIM = 64


@dataclass(frozen=True)
class Scene:
    """What a pair is made of. `window` is the share of the picture's width and height that shows anything."""

    kind: str = "cloud"  # or plane, boxes
    matches: int = 150
    outliers: float = 0.0  # share of the matches
    pixel_sigma: float = 0.0
    depth_sigma: float = 0.0  # of a depth of 1 m; grows with its square
    known: tuple[float, float] = (1.0, 1.0)  # share of locals with a 3-D point in query and match
    cameras: tuple[Camera, Camera] = (PLAIN, PLAIN)  # of query and match
    mounts: tuple[Pose, Pose] = (MOUNT, MOUNT)
    window: float = 1.0
    near_m: float = 1.0
    far_m: float = 6.0


def random_motion(rng: np.random.Generator, distance_m: float = 0.5, angle_rad: float = 0.3) -> Pose:
    """A pose at exactly this distance and angle, in random directions."""
    matrix = np.eye(4)
    matrix[:3, :3] = exp(angle_rad * _direction(rng))
    matrix[:3, 3] = distance_m * _direction(rng)
    return from_matrix(matrix, "")


def make_pair(rng: np.random.Generator, scene: Scene, match_t_query: Pose) -> tuple[View, View]:
    """Query and match that see the same points; row i of one belongs to row i of the other, outliers come last."""
    query_camera, match_camera = scene.cameras
    in_match, in_query = _points(rng, scene, to_matrix(_optical(scene, match_t_query)))
    count = len(in_match)
    wrong = count - round(count * (1 - scene.outliers))
    descriptors = rng.normal(size=(count, DIM))
    query = _view(rng, scene, query_camera, in_query, descriptors, scene.mounts[0], scene.known[0])
    if wrong:
        where = rng.uniform([0, 0], [match_camera.width, match_camera.height], (wrong, 2)).astype(np.float32)
        depth = rng.uniform(scene.near_m, scene.far_m, (wrong, 1))
        in_match[-wrong:] = np.hstack([match_camera.rays(where), np.ones((wrong, 1))]) * depth
    return query, _view(rng, scene, match_camera, in_match, descriptors, scene.mounts[1], scene.known[1])


def without_points(view: View) -> View:
    return replace(view, features=replace(view.features, points_m=None))


def camera_direction(scene: Scene, match_t_query: Pose) -> Pose:
    """What is true of a pose without scale: the rotation, and the unit direction of the camera in matched body axes."""
    way = np.array(_optical(scene, match_t_query).position_m)
    x, y, z = (rotation(scene.mounts[1].quat_xyzw) @ way / np.linalg.norm(way)).tolist()
    return Pose((x, y, z), match_t_query.quat_xyzw)


def _optical(scene: Scene, match_t_query: Pose) -> Pose:
    return compose(inverse(scene.mounts[1]), compose(match_t_query, scene.mounts[0]))


def _points(
    rng: np.random.Generator, scene: Scene, match_t_query: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (N, 3) in the optical frames of match and query that both pictures show."""
    query_camera, match_camera = scene.cameras
    size = np.array([match_camera.width, match_camera.height])
    found: list[NDArray[np.float64]] = []
    normal = np.array([*rng.uniform(-0.5, 0.5, 2), 1.0])
    for _ in range(400):
        pixels = size * (0.5 + scene.window * (rng.random((4 * scene.matches, 2)) - 0.5))
        rays = np.column_stack([match_camera.rays(pixels.astype(np.float32)), np.ones(len(pixels))])
        points = rays * _depths(rng, scene, rays, normal)[:, None]
        moved = (points - match_t_query[:3, 3]) @ match_t_query[:3, :3]
        front = (moved[:, 2] > 0.3) & (points[:, 2] > 0.3) & (np.abs(moved[:, :2]).max(axis=1) < 1.2 * moved[:, 2])
        there = query_camera.project(np.where(front[:, None], moved, [0, 0, 1.0]))
        seen = front & ((there > 0) & (there < [query_camera.width, query_camera.height])).all(axis=1)
        found += list(points[seen])
        if len(found) >= scene.matches:
            in_match = np.array(found[: scene.matches])
            return in_match, (in_match - match_t_query[:3, 3]) @ match_t_query[:3, :3]
    raise ValueError("the two cameras see nothing in common")


def _depths(
    rng: np.random.Generator, scene: Scene, rays: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    if scene.kind == "cloud":
        return rng.uniform(scene.near_m, scene.far_m, len(rays))
    middle = (scene.near_m + scene.far_m) / 2
    plane = middle / np.maximum(rays @ normal, 0.2)
    if scene.kind == "plane":
        return plane
    cell = (np.floor(rays[:, 0] * 4) * 7 + np.floor(rays[:, 1] * 4) * 3).astype(int) % 5
    return plane * np.array([1.0, 0.5, 0.8, 0.65, 1.2])[cell]


def _view(
    rng: np.random.Generator,
    scene: Scene,
    camera: Camera,
    points: NDArray[np.float64],
    descriptors: NDArray[np.float64],
    mount: Pose,
    known: float,
) -> View:
    """What the camera sees of points (N, 3) in its optical frame, with noise."""
    count = len(points)
    pixels = (camera.project(points) + rng.normal(size=(count, 2)) * scene.pixel_sigma).astype(np.float32)
    depth = points[:, 2] + rng.normal(size=count) * scene.depth_sigma * points[:, 2] ** 2
    measured = np.column_stack([camera.rays(pixels), np.ones(count)]) * depth[:, None]
    measured[rng.random(count) >= known] = np.nan
    unit = (descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)).astype(np.float32)
    features = Features(
        pixels,
        np.ones(count, np.float32),
        unit,
        np.zeros(count, np.uint8),
        (camera.width, camera.height),
        np.zeros(1, np.float32),
        measured.astype(np.float32),
    )
    return View(features, camera, mount)


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector), np.float64)
