"""Rigid transforms between frames and what they do to covariances.

A covariance here is (6, 6) over (x, y, z, rotX, rotY, rotZ) as in geometry_msgs/PoseWithCovariance: metres, then
radians about the fixed axes of the frame that the pose is expressed in. So a pose (t, R) with the errors (dt, w) stands
for (t + dt, exp(w) R).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from etr_ros.types import Pose

Matrix = NDArray[np.float64]

# camera_T_optical of a camera whose body axes follow REP-103 (x forward, y left, z up): REP-104's optical axes are
# x right, y down, z forward.
OPTICAL = Pose((0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5), "camera")


def rotation(quat_xyzw: ArrayLike) -> Matrix:
    """(4,) unit quaternion -> (3, 3) rotation."""
    x, y, z, w = np.asarray(quat_xyzw, np.float64)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion(matrix: Matrix) -> tuple[float, float, float, float]:
    """(3, 3) rotation -> unit quaternion x, y, z, w with w >= 0."""
    vector = rotation_vector(matrix)
    angle = float(np.linalg.norm(vector))
    x, y, z = (vector * (math.sin(angle / 2) / angle if angle > 1e-12 else 0.5)).tolist()
    return x, y, z, math.cos(angle / 2)


def rotation_vector(matrix: Matrix) -> Matrix:
    """(3, 3) rotation -> (3,) axis times angle in radians, the angle being in [0, pi]."""
    vector = np.asarray(cv2.Rodrigues(matrix)[0], np.float64).ravel()
    if not vector.any():  # OpenCV calls angles below 1e-5 zero; there the sine is the angle
        return 0.5 * np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    return vector


def exp(vector: ArrayLike) -> Matrix:
    """(3,) axis times angle in radians -> (3, 3) rotation."""
    return np.asarray(cv2.Rodrigues(np.asarray(vector, np.float64))[0], np.float64)


def skew(vector: ArrayLike) -> Matrix:
    """(3,) a -> (3, 3) with skew(a) @ b = a x b."""
    x, y, z = np.asarray(vector, np.float64)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def to_matrix(pose: Pose) -> Matrix:
    """(4, 4) homogeneous matrix of a pose."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(pose.quat_xyzw)
    matrix[:3, 3] = pose.position_m
    return matrix


def from_matrix(matrix: Matrix, frame_id: str) -> Pose:
    """The inverse of `to_matrix`."""
    x, y, z = matrix[:3, 3].tolist()
    return Pose((x, y, z), quaternion(matrix[:3, :3]), frame_id)


def compose(a_t_b: Pose, b_t_c: Pose) -> Pose:
    """a_t_c, expressed in the frame of a_t_b."""
    return from_matrix(to_matrix(a_t_b) @ to_matrix(b_t_c), a_t_b.frame_id)


def inverse(a_t_b: Pose, frame_id: str = "") -> Pose:
    """b_t_a."""
    return from_matrix(inverse_matrix(to_matrix(a_t_b)), frame_id)


def between(w_t_a: Pose, w_t_b: Pose) -> Pose:
    """a_t_b of two poses in one frame."""
    return compose(inverse(w_t_a), w_t_b)


def inverse_matrix(matrix: Matrix) -> Matrix:
    """The inverse of a rigid (4, 4) transform."""
    result = np.eye(4)
    result[:3, :3] = matrix[:3, :3].T
    result[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return result


def change_frames(covariance: Matrix, a: Pose, t: Pose, b: Pose) -> Matrix:
    """The covariance of a * t * b, where `covariance` is that of t; a and b are exact.

    With the errors (dt, w) of t the product's are (R_a dt - R_a [R_t t_b]x w, R_a w).
    """
    r_a = rotation(a.quat_xyzw)
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = jacobian[3:, 3:] = r_a
    jacobian[:3, 3:] = -r_a @ skew(rotation(t.quat_xyzw) @ b.position_m)
    result: Matrix = jacobian @ covariance @ jacobian.T
    return result


def compose_covariance(cov_a: Matrix, a: Pose, cov_b: Matrix, b: Pose) -> Matrix:
    """The covariance of a * b whose errors are independent.

    An error (dt, w) of a moves the product by (dt - [R_a t_b]x w, w).
    """
    identity = Pose((0.0, 0.0, 0.0))
    from_a = np.eye(6)
    from_a[:3, 3:] = -skew(rotation(a.quat_xyzw) @ b.position_m)
    result: Matrix = from_a @ cov_a @ from_a.T + change_frames(cov_b, a, b, identity)
    return result


def inverse_covariance(covariance: Matrix, t: Pose) -> Matrix:
    """The covariance of the inverse of t, where `covariance` is that of t."""
    r = rotation(t.quat_xyzw).T
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = jacobian[3:, 3:] = -r
    jacobian[:3, 3:] = -r @ skew(t.position_m)
    result: Matrix = jacobian @ covariance @ jacobian.T
    return result


def error(t: Pose, true: Pose) -> Matrix:
    """(6,) the (dt, w) by which t differs from the true pose, both in one frame."""
    w = rotation_vector(rotation(t.quat_xyzw) @ rotation(true.quat_xyzw).T)
    return np.concatenate([np.subtract(t.position_m, true.position_m), w])
