"""Which candidates are worth a re-ranker's time: a cheap look at all of them, from few local features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from etr_ros.relations import NEAR, TOLERANCES, Points, disagreement
from etr_ros.rerank import collate
from etr_ros.side_by_side import in_parts
from etr_ros.tokens import nearest_neighbours, take
from etr_ros.types import Features, FloatArray

LOCALS = 128  # strongest ones of each picture that are compared
MATCHES = 32  # best of them whose motion is compared
PAIRS_AT_ONCE = 50  # that a processor core looks at
COSINE = 8.0  # what the cosine of the global descriptors counts; chosen on validation places, docs/speed.md


def promise(query: Features, candidates: Sequence[Features]) -> FloatArray:
    """How much speaks for each candidate at first sight, (K,), at least one; higher is better.

    It is the logarithm of how many pairs of mutual nearest neighbours among the strongest locals move alike and lie
    near one another, each weighted by its cosines, and `COSINE` times the cosine of the global descriptors. It ranks
    the candidates of one query; it is no probability.
    """
    found = in_parts(lambda each: _promise(query, each), candidates, PAIRS_AT_ONCE)
    return np.array(found, np.float32)


@torch.inference_mode()
def _promise(query: Features, candidates: Sequence[Features]) -> list[float]:
    one, b = collate([query], LOCALS), collate(candidates, LOCALS)
    a = one.expand(len(b))
    nearest = nearest_neighbours(a, b)
    weights = (nearest.largest * nearest.mutual).clamp_min(0.0)  # (K, L)
    weights, rows = weights.topk(min(MATCHES, weights.shape[1]), dim=1)  # (K, T)
    points = Points(take(a.xy, rows), take(b.xy, nearest.partners.gather(1, rows)))
    off, distance = disagreement(points, points)
    alike = (off * (-1 / TOLERANCES[1])).exp_() * (distance * (1 / NEAR)).square_().neg_().exp_()
    agreeing = ((alike @ weights[..., None]).squeeze(2) * weights).sum(dim=1) - weights.square().sum(dim=1)
    cosines = np.stack([each.global_descriptor for each in candidates]) @ query.global_descriptor
    promises: list[float] = (agreeing.clamp_min(0.0).log1p().numpy() + COSINE * cosines).tolist()
    return promises
