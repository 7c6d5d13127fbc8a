"""Which robust estimator starts the relative pose, and how honest and fast is the whole: made-up scenes, known poses.

    python benchmarks/geometry.py [--trials 300]

Prints two Markdown tables. The first compares the robust estimators of OpenCV and of PoseLib (left out when it is not
installed: pip install poselib) before any refinement. The second gives the accuracy, the mean NEES (6, or 5 without
scale, when the covariance is right) and the time of `etr_ros.geometry.estimate`, where it has enough inliers.
OMP_NUM_THREADS=1 gives the times of one core; times are CPU times, medians over the trials.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from etr_ros import geometry
from etr_ros.config import GeometryConfig
from etr_ros.transforms import compose, error, exp, inverse, inverse_matrix, rotation_vector, to_matrix
from etr_ros.types import Pose
from scenes import MOUNT, PLAIN, Scene, camera_direction, make_pair, random_motion

try:
    import poselib
except ImportError:
    poselib = None

Matrix = NDArray[np.float64]
CONFIG = GeometryConfig(inflation=1.0)  # the errors here are independent
K, THRESHOLD_PX, CONFIDENCE, ITERATIONS = np.diag([450.0, 450.0, 1.0]), 3.0, 0.999, 1000
EPIPOLAR_PX = 2.0
PINHOLE = {"model": "PINHOLE", "width": 640, "height": 480, "params": [450.0, 450.0, 0.0, 0.0]}
MIXES = [("cloud", 200, 0.3), ("boxes", 60, 0.3), ("boxes", 200, 0.6), ("plane", 200, 0.6)]


def pnp_usac(score: int, local: int) -> Callable[[Matrix, Matrix], Matrix]:
    """OpenCV's USAC with P3P: 3-D points (N, 3), pixels (N, 2) -> (4, 4)."""
    params = cv2.UsacParams()
    params.confidence, params.maxIterations, params.threshold = CONFIDENCE, ITERATIONS, THRESHOLD_PX
    params.sampler, params.score, params.loMethod = cv2.SAMPLING_UNIFORM, score, local
    params.final_polisher = cv2.NONE_POLISHER if local == cv2.LOCAL_OPTIM_NULL else cv2.LSQ_POLISHER

    def solve(points: Matrix, pixels: Matrix) -> Matrix:
        _, _, turn, position, _ = cv2.solvePnPRansac(points, pixels, K, np.zeros(4), params=params)
        return rigid(exp(turn), position)

    return solve


def pnp_sqpnp(points: Matrix, pixels: Matrix) -> Matrix:
    """OpenCV's older RANSAC with SQPnP."""
    _, turn, position, _ = cv2.solvePnPRansac(
        points,
        pixels,
        K,
        np.zeros(4),
        iterationsCount=ITERATIONS,
        reprojectionError=THRESHOLD_PX,
        confidence=CONFIDENCE,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    return rigid(exp(turn), position)


def pnp_poselib(points: Matrix, pixels: Matrix) -> Matrix:
    """PoseLib's LO-RANSAC with P3P."""
    options = {
        "max_reproj_error": THRESHOLD_PX,
        "max_iterations": ITERATIONS,
        "min_iterations": 50,
        "success_prob": CONFIDENCE,
    }
    pose, _ = poselib.estimate_absolute_pose(pixels, points, PINHOLE, options, {})
    return rigid(pose.R, pose.t)


def essential(method: int) -> Callable[[Matrix, Matrix], Matrix]:
    """OpenCV's USAC with the five-point solver: pixels (N, 2) of query and match -> (4, 4)."""

    def solve(query: Matrix, match: Matrix) -> Matrix:
        found, mask = cv2.findEssentialMat(query, match, K, method, CONFIDENCE, EPIPOLAR_PX, 500)
        return rigid(*cv2.recoverPose(found, query, match, K, distanceThresh=1e9, mask=mask)[1:3])

    return solve


def essential_poselib(query: Matrix, match: Matrix) -> Matrix:
    """PoseLib's LO-RANSAC with the five-point solver."""
    options = {
        "max_epipolar_error": EPIPOLAR_PX,
        "max_iterations": 500,
        "min_iterations": 50,
        "success_prob": CONFIDENCE,
    }
    pose, _ = poselib.estimate_relative_pose(query, match, PINHOLE, PINHOLE, options, {})
    return rigid(pose.R, pose.t)


def rigid(turn: Matrix, position: Matrix) -> Matrix:
    """(4, 4) from rotation and position."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, np.ravel(position)
    return matrix


POINTS = {
    "PnP, OpenCV USAC MSAC, no local optimisation": pnp_usac(cv2.SCORE_METHOD_MSAC, cv2.LOCAL_OPTIM_NULL),
    "PnP, OpenCV USAC MAGSAC++": pnp_usac(cv2.SCORE_METHOD_MAGSAC, cv2.LOCAL_OPTIM_SIGMA),
    "PnP, OpenCV RANSAC SQPnP": pnp_sqpnp,
}
RAYS = {
    "essential, OpenCV USAC_MAGSAC": essential(cv2.USAC_MAGSAC),
    "essential, OpenCV USAC_DEFAULT": essential(cv2.USAC_DEFAULT),
}
if poselib is not None:
    POINTS["PnP, PoseLib"] = pnp_poselib
    RAYS["essential, PoseLib"] = essential_poselib


def scene(kind: str, matches: int, outliers: float, known: tuple[float, float] = (1.0, 1.0)) -> Scene:
    """With the noise that the default configuration expects."""
    return Scene(kind, matches, outliers, CONFIG.pixel_sigma, CONFIG.depth_sigma, known)


def motion(rng: np.random.Generator) -> Pose:
    """5 cm to 0.8 m and up to 20 degrees."""
    return random_motion(rng, rng.uniform(0.05, 0.8), rng.uniform(0, 0.35))


def compare_starts(trials: int) -> None:
    """Position errors of PnP are in metres, those of the essential matrix in degrees of direction."""
    print("| estimator | scene | matches | outliers | position | rotation, degrees | off by > 3 degrees | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, matches, outliers in MIXES:
        errors: dict[str, list[tuple[float, float, float]]] = {name: [] for name in [*POINTS, *RAYS]}
        for seed in tqdm(range(trials), f"{kind} {outliers:.0%}", leave=False):
            rng = np.random.default_rng(seed)
            true = motion(rng)
            query, match = make_pair(rng, scene(kind, matches, outliers), true)
            cameras = to_matrix(compose(inverse(MOUNT), compose(true, MOUNT)))
            in_query, in_match = (PLAIN.rays(view.features.keypoints) * 450 for view in (query, match))
            points = np.asarray(match.features.points_m, np.float64)
            for name, solve in {**POINTS, **RAYS}.items():
                is_pnp = name in POINTS
                start = time.process_time()
                try:
                    found = solve(points, in_query) if is_pnp else solve(in_query, in_match)
                except cv2.error:
                    found = np.diag([-1.0, -1.0, 1.0, 1.0])
                took = time.process_time() - start
                errors[name].append((*off(inverse_matrix(found) if is_pnp else found, cameras, is_pnp), 1e3 * took))
        for name, rows in errors.items():
            position, turn, took = np.median(rows, axis=0)
            failed = np.mean(np.array(rows)[:, 1] > 3)
            unit = "m" if name in POINTS else "deg"
            print(
                f"| {name} | {kind} | {matches} | {outliers:.0%} | {position:.3g} {unit} | {turn:.3f} "
                f"| {failed:.1%} | {took:.1f} |",
                flush=True,
            )


def off(found: Matrix, true: Matrix, is_metric: bool) -> tuple[float, float]:
    """Metres, or degrees of direction; degrees of rotation."""
    turn = math.degrees(float(np.linalg.norm(rotation_vector(found[:3, :3] @ true[:3, :3].T))))
    if is_metric:
        return float(np.linalg.norm(found[:3, 3] - true[:3, 3])), turn
    cosine = found[:3, 3] @ true[:3, 3] / max(float(np.linalg.norm(found[:3, 3]) * np.linalg.norm(true[:3, 3])), 1e-12)
    return math.degrees(math.acos(float(np.clip(cosine, -1, 1)))), turn


def judge_estimate(trials: int) -> None:
    """Scenes of as many locals as matches, 30 to 300, of which 0 to 60 % are outliers."""
    print("\n| 3-D points | scene | poses | position | rotation, degrees | NEES | of rotation | highest NEES | ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for label, known in (("both", (1.0, 1.0)), ("map", (0.0, 1.0)), ("query", (1.0, 0.0)), ("none", (0.0, 0.0))):
        for kind in ("cloud", "boxes", "plane"):
            rows = []
            for seed in tqdm(range(trials), f"{label} {kind}", leave=False):
                rng = np.random.default_rng(seed)
                true = motion(rng)
                mix = scene(kind, int(rng.integers(30, 301)), rng.uniform(0, 0.6), known)
                query, match = make_pair(rng, mix, true)
                start = time.process_time()
                found = geometry.estimate(query, match, CONFIG)
                took = time.process_time() - start
                if found.match_t_query is None or found.covariance is None or found.inliers < CONFIG.min_inliers:
                    continue
                e = error(found.match_t_query, true if found.is_metric else camera_direction(mix, true))
                nees = e @ np.linalg.solve(found.covariance, e)
                turn_nees = e[3:] @ np.linalg.solve(found.covariance[3:, 3:], e[3:])
                size = np.linalg.norm(e[:3]), math.degrees(float(np.linalg.norm(e[3:])))
                rows.append((*size, nees, turn_nees, 1e3 * took))
            position, turn, _, _, took = np.median(rows, axis=0)
            _, _, nees, turn_nees, _ = np.mean(rows, axis=0)
            print(
                f"| {label} | {kind} | {len(rows)} | {position:.4f} | {turn:.3f} | {nees:.2f} | {turn_nees:.2f} "
                f"| {np.max(rows, axis=0)[2]:.0f} | {took:.1f} |",
                flush=True,
            )


def main() -> int:
    """Measure and print; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="made-up pairs for each row (default: %(default)s)")
    trials = parser.parse_args().trials
    cv2.setNumThreads(1)
    compare_starts(trials)
    judge_estimate(trials)
    return 0


if __name__ == "__main__":
    sys.exit(main())
