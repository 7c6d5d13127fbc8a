"""A pose graph in GTSAM's iSAM2: keyframes from odometry, loops with a robust noise model, the corrected trajectory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import gtsam
import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import DataError
from etr_ros.poses import to_pose
from etr_ros.transforms import Matrix, compose, compose_covariance, from_matrix, inverse_matrix, to_matrix
from etr_ros.types import Pose
from examples.back_end.factors import OdometryNoise, between_factor, robust_factor, sigmas_off
from examples.back_end.odometry import OdometryTrack

START_SIGMA = 1e-4  # metres and radians: the map's frame is the odometry's at its start
RELINEARIZE = 1e-3  # metres and radians
SETTLED_M = 1e-3
MAX_UPDATES = 50


@dataclass(frozen=True, eq=False)
class Loop:
    """That the body at `query_stamp_ns` was at `match_t_query` from where it was at `match_stamp_ns`.

    `covariance` is (6, 6) as in `etr_ros.transforms`; stamps are in nanoseconds.
    """

    match_stamp_ns: int
    query_stamp_ns: int
    match_t_query: Pose
    covariance: Matrix


class LoopResult(NamedTuple):
    """What became of a loop: it is in the graph when `reason` is empty, and `shift_m` is how far it moved the robot."""

    loop: Loop
    reason: str = ""
    shift_m: float = 0.0


class PoseGraph:
    """Odometry and loops in, the corrected trajectory out. Same calls, same result."""

    def __init__(
        self,
        noise: OdometryNoise | None = None,
        keyframe_m: float = 0.5,
        keyframe_deg: float = 15.0,
        max_waiting: int = 100,
    ) -> None:
        """A keyframe is made each `keyframe_m` metres or `keyframe_deg` degrees.

        At most `max_waiting` loops wait for the odometry of their stamps; beyond that the oldest is rejected.
        """
        self._noise = noise or OdometryNoise()
        self._max_waiting = max_waiting
        self._waiting: deque[Loop] = deque()
        self._track = OdometryTrack(keyframe_m, keyframe_deg)
        self._corrected: Matrix = np.empty((0, 4, 4))  # map_t_body of each keyframe
        self._loops: list[gtsam.BetweenFactorPose3] = []  # without the robust kernel
        parameters = gtsam.ISAM2Params()
        parameters.setRelinearizeThreshold(RELINEARIZE)
        parameters.relinearizeSkip = 1
        self._isam = gtsam.ISAM2(parameters)

    @property
    def waiting(self) -> int:
        """How many loops wait for the odometry of their stamps."""
        return len(self._waiting)

    def add_odometry(self, stamp_ns: int, odom_t_body: Pose) -> list[LoopResult]:
        """Take the next pose of the odometry; gives what became of the loops that waited for it.

        Raises DataError for numbers that are no pose, or a stamp that is not after the last one; nothing changes then.
        """
        if self._track.add(stamp_ns, odom_t_body):
            self._add_keyframe()
        waiting, self._waiting = self._waiting, deque()
        return [result for loop in waiting for result in self._enter_or_wait(loop)]

    def add_loop(
        self, match_stamp_ns: int, query_stamp_ns: int, match_t_query: Pose, covariance: Matrix
    ) -> list[LoopResult]:
        """Take a loop (see `Loop`); gives what became of it, or nothing while it waits for odometry."""
        pose = to_pose([*match_t_query.position_m, *match_t_query.quat_xyzw])
        loop = Loop(match_stamp_ns, query_stamp_ns, pose or match_t_query, np.asarray(covariance, np.float64))
        if pose is None:
            return [LoopResult(loop, "its relative pose has NaN, huge numbers, or no unit quaternion")]
        reason = _why_no_covariance(loop.covariance)
        return [LoopResult(loop, reason)] if reason else self._enter_or_wait(loop)

    def trajectory(self) -> tuple[NDArray[np.int64], Matrix]:
        """Stamps (N,) in nanoseconds and map_t_body (N, 4, 4) of every odometry pose."""
        if self._track.last_stamp_ns is None:
            return np.empty(0, np.int64), np.empty((0, 4, 4))
        return self._track.stamps_ns, self._track.corrected(self._corrected)

    def keyframes(self) -> tuple[NDArray[np.int64], Matrix]:
        """Stamps (K,) in nanoseconds and map_t_body (K, 4, 4) of the keyframes."""
        return self._track.keyframe_stamps_ns, self._corrected.copy()

    def latest(self) -> Matrix:
        """map_t_body (4, 4) at the newest odometry. Raises DataError before the first."""
        if not len(self._corrected):
            raise DataError("there is no odometry yet")
        return np.asarray(self._corrected[-1] @ self._track.since_keyframe())

    def sigmas_off(self) -> NDArray[np.float64]:
        """(L,) how many standard deviations each loop in the graph is off the corrected trajectory, as they came."""
        values = self._isam.calculateEstimate()
        return np.array([sigmas_off(loop, values) for loop in self._loops])

    def _add_keyframe(self) -> None:
        key = len(self._corrected)
        factors, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        if key == 0:
            guess = self._track.keyframe(0)
            start = gtsam.noiseModel.Isotropic.Sigma(6, START_SIGMA)
            factors.add(gtsam.PriorFactorPose3(0, gtsam.Pose3(guess), start))
        else:
            step = from_matrix(inverse_matrix(self._track.keyframe(-2)) @ self._track.keyframe(-1), "")
            guess = self._corrected[-1] @ to_matrix(step)
            factors.add(between_factor(key - 1, key, step, self._noise.covariance(step)))
        values.insert(key, gtsam.Pose3(guess))
        self._isam.update(factors, values)
        self._corrected = np.concatenate([self._corrected, guess[None]])

    def _enter_or_wait(self, loop: Loop) -> list[LoopResult]:
        newest = self._track.last_stamp_ns
        if newest is not None and max(loop.match_stamp_ns, loop.query_stamp_ns) <= newest:
            return [self._enter(loop)]
        self._waiting.append(loop)
        if len(self._waiting) <= self._max_waiting:
            return []
        return [LoopResult(self._waiting.popleft(), f"more than {self._max_waiting} loops wait for odometry")]

    def _enter(self, loop: Loop) -> LoopResult:
        """Carry the loop to the keyframes next to its ends, by the odometry in between, and add it to the graph."""
        match, query = self._track.at(loop.match_stamp_ns), self._track.at(loop.query_stamp_ns)
        if match is None or query is None:
            return LoopResult(loop, f"no odometry at the stamp of its {'match' if match is None else 'query'}")
        a, a_t_match = self._track.nearest_keyframe(loop.match_stamp_ns, match)
        b, b_t_query = self._track.nearest_keyframe(loop.query_stamp_ns, query)
        if a == b:
            return LoopResult(loop, "both of its ends are at the same keyframe")
        before = from_matrix(a_t_match, "")
        after = from_matrix(inverse_matrix(b_t_query), "")
        a_t_query = compose(before, loop.match_t_query)
        covariance = compose_covariance(self._noise.covariance(before), before, loop.covariance, loop.match_t_query)
        covariance = compose_covariance(covariance, a_t_query, self._noise.covariance(after), after)
        plain = between_factor(a, b, compose(a_t_query, after), covariance)
        robot = self.latest()[:3, 3]
        self._settle(robust_factor(plain))
        self._loops.append(plain)
        return LoopResult(loop, shift_m=float(np.linalg.norm(self.latest()[:3, 3] - robot)))

    def _settle(self, factor: gtsam.BetweenFactorPose3) -> None:
        """Add a loop and repeat the update, which weighs all loops anew, until the keyframes stay where they are."""
        factors = gtsam.NonlinearFactorGraph()
        factors.add(factor)
        self._isam.update(factors, gtsam.Values())
        for _ in range(MAX_UPDATES):
            before = self._corrected
            self._corrected = _poses(self._isam.calculateEstimate())
            if np.abs(self._corrected[:, :3, 3] - before[:, :3, 3]).max() < SETTLED_M:
                break
            self._isam.update()


def _poses(values: gtsam.Values) -> Matrix:
    """(K, 4, 4) in the order of the keys."""
    rows = gtsam.utilities.extractPose3(values)  # (K, 12): the rotation row by row, the position
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3] = rows[:, :9].reshape(-1, 3, 3)
    poses[:, :3, 3] = rows[:, 9:]
    return poses


def _why_no_covariance(covariance: Matrix) -> str:
    """Why it says nothing about uncertainty, or nothing."""
    if covariance.shape != (6, 6) or not np.isfinite(covariance).all():
        return "its covariance was not computed"
    is_symmetric = np.allclose(covariance, covariance.T, atol=1e-9 * covariance.max())
    if not is_symmetric or np.linalg.eigvalsh(covariance)[0] <= 0:
        return "its covariance is not positive definite"
    return ""
