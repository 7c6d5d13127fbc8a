"""Depth of the simulated camera: exact geometry, and what the noise makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("vizdoom")

from etr_ros.transforms import OPTICAL, between, compose, to_matrix
from etr_ros.types import FloatArray
from examples.simulator.camera import Camera
from examples.simulator.covisibility import RAYS, sight
from examples.simulator.depth import DepthCamera, to_millimetres
from examples.simulator.level import CELL_M, Level, Sector
from examples.simulator.noise import DEPTH_RANGE_M, DEPTH_SIGMA_PER_M, noisy_depth
from examples.simulator.plan import plan_laps
from examples.simulator.space import FreeSpace
from examples.simulator.world import World
from test_simulator import CAMERA, EYE_M, ROOM, at, box, ring, two_rooms

MIDDLE = CAMERA.width_px // 2


def see(level: Level, x: float, y: float, yaw: float) -> FloatArray:
    return DepthCamera(level, CAMERA).see(at(x, y, yaw))


def yard(ceiling_m: float) -> Level:
    """A room under the sky, whose right half has another height of the sky."""
    left, right = box(0, 0, 8, 8), box(8, 0, 8, 8)
    right = (*right[:3], left[1])
    return Level(
        "yard",
        (
            Sector(0.0, 4.0, left, (True, False, True, True), is_open_sky=True),
            Sector(0.0, ceiling_m, right, (True, True, True, False), is_open_sky=True),
        ),
    )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World("MAP01", Camera(320, 240)) as world:
        yield world


@given(x=st.floats(0.5, 9.5), y=st.floats(0.5, 5.5), yaw=st.floats(-math.pi, math.pi))
@settings(max_examples=30, deadline=None)
def test_depth_in_a_room_is_that_of_the_nearest_of_its_six_sides(x: float, y: float, yaw: float) -> None:
    column, row = np.meshgrid(np.arange(CAMERA.width_px), np.arange(CAMERA.height_px))
    right, down = ((v - c) / CAMERA.focal_px for v, c in zip((column, row), CAMERA.centre_px, strict=True))
    rays = math.cos(yaw) + right * math.sin(yaw), math.sin(yaw) - right * math.cos(yaw), -down
    sides = ((0, 10 - x), (0, -x), (1, 6 - y), (1, -y), (2, 3 - EYE_M), (2, -EYE_M))
    with np.errstate(divide="ignore"):
        to_side = [np.where(distance / rays[axis] > 0, distance / rays[axis], np.inf) for axis, distance in sides]
    assert np.allclose(see(ROOM, x, y, yaw), np.min(to_side, axis=0), rtol=1e-4)


def test_step_hides_what_is_below_it() -> None:
    from_below, from_above = (see(two_rooms(0.6), x, 4, yaw)[:, MIDDLE] for x, yaw in ((4, 0.0), (12, math.pi)))
    slope = (np.arange(CAMERA.height_px) - CAMERA.centre_px[1]) / CAMERA.focal_px

    is_riser = (slope > (EYE_M - 0.6) / 4) & (slope < EYE_M / 4)
    assert from_below[is_riser] == pytest.approx(4.0)
    assert from_below[slope > EYE_M / 4] == pytest.approx(EYE_M / slope[slope > EYE_M / 4], rel=1e-4)

    is_upper, is_lower = slope > (EYE_M - 0.6) / 4, (slope > EYE_M / 12) & (slope < (EYE_M - 0.6) / 4)
    assert from_above[is_upper] == pytest.approx((EYE_M - 0.6) / slope[is_upper], rel=1e-4)
    assert from_above[is_lower] == pytest.approx(EYE_M / slope[is_lower], rel=1e-4)
    assert is_lower.any()


@pytest.mark.parametrize("beyond_m", [2.5, 4.0, 6.0])
def test_sky_has_no_depth_and_hides_no_wall_below_it(beyond_m: float) -> None:
    column = see(yard(beyond_m), 4, 4, 0.0)[:, MIDDLE]
    up = (CAMERA.centre_px[1] - np.arange(CAMERA.height_px)) / CAMERA.focal_px
    is_wall = (up > 0) & (up < (beyond_m - EYE_M) / 12)
    assert column[is_wall] == pytest.approx(12.0)
    assert np.isnan(column[up > (beyond_m - EYE_M) / 12]).all()


def test_wall_hides_what_is_behind_it() -> None:
    ahead = see(ring(), 2, 10, 0.0)
    assert np.nanmax(ahead[:, MIDDLE]) == pytest.approx(2.0)


def test_depth_agrees_with_marching_through_the_height_maps(world: World) -> None:
    camera = Camera(*RAYS)
    for x, y, yaw in plan_laps(FreeSpace(world.level.heights), 60.0, seed=2).every(9.0):
        pose = world.look(x, y, yaw).pose
        exact, marched = DepthCamera(world.level, camera).see(pose), sight(world.level.heights, camera, pose).depth_m
        assert np.mean(np.isnan(exact) == np.isinf(marched)) > 0.97
        difference = np.abs(exact - marched)[np.isfinite(exact) & np.isfinite(marched)]
        assert np.mean(difference < 2 * CELL_M) > 0.9


def test_depth_and_pose_predict_the_next_picture(world: World) -> None:
    """A picture whose pixels are fetched from another one, through depth and poses, looks as the world does."""
    depth_camera, intrinsics = DepthCamera(world.level, world.camera), world.camera.intrinsics
    column, row = np.meshgrid(np.arange(intrinsics.width), np.arange(intrinsics.height))
    rays = intrinsics.rays(np.column_stack([column.ravel(), row.ravel()]).astype(np.float32))

    def error(depth: FloatArray, there_t_here: NDArray[np.float64], here: FloatArray, there: FloatArray) -> float:
        points = np.column_stack([rays, np.ones(len(rays))]) * depth.reshape(-1, 1)
        points = points @ there_t_here[:3, :3].T + there_t_here[:3, 3]
        is_ahead = points[:, 2] > 0.3
        pixels = np.full((len(points), 2), -1.0)
        pixels[is_ahead] = intrinsics.project(points[is_ahead])
        at_px = pixels.reshape(*depth.shape, 2).astype(np.float32)
        fetched = cv2.remap(there, at_px, np.empty(0), cv2.INTER_LINEAR, borderValue=[math.nan])
        return float(np.nanmedian(np.abs(fetched - here)))

    ratios = []
    for x, y, yaw in plan_laps(FreeSpace(world.level.heights), 60.0, seed=2).every(9.0):
        here, there = world.look(x, y, yaw), world.look(x + 0.4, y + 0.1, yaw + 0.1)
        grey = [cv2.cvtColor(view.image, cv2.COLOR_BGR2GRAY).astype(np.float32) for view in (here, there)]
        relative = to_matrix(between(compose(there.pose, OPTICAL), compose(here.pose, OPTICAL)))
        depth = depth_camera.see(here.pose)
        ratios.append(error(depth, relative, *grey) / error(np.float32(1.5) * depth, relative, *grey))
    assert np.median(ratios) < 0.7


# noise


def test_depth_noise_grows_with_the_square_of_the_distance() -> None:
    for metres in (1.0, 3.0, 8.0):
        flat = np.full((480, 640), metres, np.float32)
        error = noisy_depth(flat, (1,)) - flat
        assert error.std() == pytest.approx(DEPTH_SIGMA_PER_M * metres**2, rel=0.05)
        assert abs(error.mean()) < 0.1 * error.std()


def test_depth_is_lost_at_edges_and_out_of_range() -> None:
    depth = np.full((40, 60), 2.0, np.float32)
    depth[:, 30:] = 4.0
    depth[:10, :5], depth[:10, 50:] = np.nan, DEPTH_RANGE_M[1] + 1
    depth[30:, :5] = DEPTH_RANGE_M[0] / 2
    is_seen = np.isfinite(noisy_depth(depth, (1,)))
    assert not is_seen[:, 29:31].any()
    assert not is_seen[:10, :5].any()
    assert not is_seen[:10, 50:].any()
    assert not is_seen[30:, :5].any()
    assert is_seen[12:28, 5:28].all()
    assert is_seen[12:, 32:].all()


def test_depth_noise_follows_from_the_seed() -> None:
    flat = np.full((48, 64), 3.0, np.float32)
    assert np.array_equal(noisy_depth(flat, (1, 2)), noisy_depth(flat, (1, 2)))
    assert not np.array_equal(noisy_depth(flat, (1, 2)), noisy_depth(flat, (1, 3)))


def test_millimetres_keep_what_is_unknown() -> None:
    depth = np.array([[1.2344, np.nan, 0.3, 65.536, 9e6]], np.float32)
    assert to_millimetres(depth).tolist() == [[1234, 0, 300, 0, 0]]
