"""Measurements as GTSAM factors: noise models in GTSAM's tangent, plain and robust."""

from __future__ import annotations

import math
from dataclasses import dataclass

import gtsam
import numpy as np

from etr_ros.transforms import Matrix, rotation, rotation_vector, to_matrix
from etr_ros.types import Pose

CAUCHY_K = 3.0  # standard deviations at which a loop counts half


@dataclass(frozen=True)
class OdometryNoise:
    """How odometry drifts: standard deviations after 1 m, growing with the root of the distance.

    A turn by one radian counts as `turn_m` metres.
    """

    position_m: float = 0.05
    rotation_deg: float = 1.0
    turn_m: float = 0.5

    def covariance(self, a_t_b: Pose) -> Matrix:
        """(6, 6) covariance of one step, as in `etr_ros.transforms`."""
        turn_rad = float(np.linalg.norm(rotation_vector(rotation(a_t_b.quat_xyzw))))
        metres = math.dist(a_t_b.position_m, (0.0, 0.0, 0.0)) + self.turn_m * turn_rad
        variances = [self.position_m**2] * 3 + [math.radians(self.rotation_deg) ** 2] * 3
        return metres * np.diag(variances)


def tangent_covariance(covariance: Matrix, a_t_b: Pose) -> Matrix:
    """The covariance (6, 6) of `etr_ros.transforms` as one of GTSAM's tangent of Pose3: rotation first, in b's axes.

    (t + dt, exp(w) R) = (t, R) Exp([R^T w, R^T dt]) up to second order.
    """
    r = rotation(a_t_b.quat_xyzw).T
    jacobian = np.zeros((6, 6))
    jacobian[:3, 3:] = jacobian[3:, :3] = r
    result: Matrix = jacobian @ covariance @ jacobian.T
    return result


def between_factor(a: int, b: int, a_t_b: Pose, covariance: Matrix) -> gtsam.BetweenFactorPose3:
    """The relative pose of two keyframes with Gaussian noise."""
    noise = gtsam.noiseModel.Gaussian.Covariance(tangent_covariance(covariance, a_t_b))
    return gtsam.BetweenFactorPose3(a, b, gtsam.Pose3(to_matrix(a_t_b)), noise)


def robust_factor(plain: gtsam.BetweenFactorPose3) -> gtsam.BetweenFactorPose3:
    """The same measurement, counting the less the further it is off, with Cauchy's weight k^2 / (k^2 + sigmas^2).

    The first true loop after a long drift is as far off as a false one. Kernels whose pull fades faster (Geman-McClure,
    DCS) either never take it in, or, when made wide, take in loops that are wrong by less than a metre as well.
    """
    kernel = gtsam.noiseModel.mEstimator.Cauchy.Create(CAUCHY_K)
    noise = gtsam.noiseModel.Robust.Create(kernel, plain.noiseModel())
    a, b = plain.keys()
    return gtsam.BetweenFactorPose3(a, b, plain.measured(), noise)


def sigmas_off(plain: gtsam.BetweenFactorPose3, values: gtsam.Values) -> float:
    """How many standard deviations the measurement is off the estimate (Mahalanobis distance)."""
    return math.sqrt(2.0 * plain.error(values))
