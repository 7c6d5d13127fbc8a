"""Satellite fixes as positions in metres: east, north, up of the first one (REP-103), on the WGS84 ellipsoid."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

EQUATOR_M = 6378137.0
FLATTENING = 1 / 298.257223563
ECCENTRICITY_2 = FLATTENING * (2 - FLATTENING)


def to_enu(fixes: ArrayLike) -> NDArray[np.float64]:
    """Latitude and longitude in degrees and altitude in metres (N, 3) -> east, north, up of the first in metres (N, 3).

    Over earth-fixed coordinates and the tangent plane at the first fix (IOGP 373-7-2, 9602 and 9837).
    """
    latitude, longitude, altitude = np.asarray(fixes, np.float64).reshape(-1, 3).T
    if not len(latitude):
        return np.empty((0, 3))
    phi, lam = np.radians(latitude), np.radians(longitude)
    normal_m = EQUATOR_M / np.sqrt(1 - ECCENTRICITY_2 * np.sin(phi) ** 2)
    earth = np.stack(
        [
            (normal_m + altitude) * np.cos(phi) * np.cos(lam),
            (normal_m + altitude) * np.cos(phi) * np.sin(lam),
            (normal_m * (1 - ECCENTRICITY_2) + altitude) * np.sin(phi),
        ],
        axis=1,
    )
    (sp, cp), (sl, cl) = (np.sin(phi[0]), np.cos(phi[0])), (np.sin(lam[0]), np.cos(lam[0]))
    axes = np.array([[-sl, cl, 0], [-sp * cl, -sp * sl, cp], [cp * cl, cp * sl, sp]])
    enu: NDArray[np.float64] = (earth - earth[0]) @ axes.T
    return enu
