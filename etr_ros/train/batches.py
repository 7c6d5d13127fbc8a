"""Batches of pairs, and the loss on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from etr_ros.etr import ETR
from etr_ros.tokens import CorrelationTokens, Locals, correlate
from etr_ros.train.pairs import PairSet
from etr_ros.train.settings import TrainConfig
from etr_ros.train.teacher import gate_targets
from etr_ros.train.vary import vary


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Groups of pairs: in each the positive first, then negatives, and in some a doubtful pair at the end.

    `anchors` and `slots` (N,) say where in the table of difficulties a pair stands; slot -1: nowhere.
    """

    rows_a: Tensor  # (N,)
    rows_b: Tensor
    labels: Tensor  # (N,) in [0, 1]
    is_doubtful: Tensor  # (N,) bool
    anchors: NDArray[np.int64]
    slots: NDArray[np.int64]

    def note_difficulty(self, difficulty: NDArray[np.float32], logits: Tensor) -> None:
        """Remember how much each look-alike was taken for the same place."""
        drawn = self.slots >= 0
        difficulty[self.anchors[drawn], self.slots[drawn]] = logits.detach().sigmoid().numpy()[drawn]


def sample(pairs: PairSet, config: TrainConfig, step: int, difficulty: NDArray[np.float32]) -> Batch:
    """`anchors` groups of `1 + negatives` pairs; every source gives as many, however many pictures it has.

    The same seed, step and difficulties (P, HARD_POOL) give the same.
    """
    rng = np.random.default_rng((config.seed, step))
    drawn: list[tuple[int, int, float, bool, int]] = []  # anchor, partner, label, doubtful, slot
    by_source = pairs.anchors_by_source
    for source in rng.integers(len(by_source), size=config.anchors).tolist():
        anchor = int(rng.choice(by_source[source]))
        which = rng.integers(len(pairs.positives[anchor]))
        drawn.append((anchor, pairs.positives[anchor][which], pairs.positive_labels[anchor][which], False, -1))
        for number in range(config.negatives):
            doubtful, pool = pairs.doubtful[anchor], pairs.lookalikes[anchor]
            if number + 1 == config.negatives and len(doubtful) and rng.random() < config.doubtful_share:
                which = rng.integers(len(doubtful))
                drawn.append((anchor, doubtful[which], pairs.doubtful_labels[anchor][which], True, -1))
            elif rng.random() < config.elsewhere_share and len(far := _elsewhere(pairs, anchor, rng)):
                drawn.append((anchor, rng.choice(far), 0.0, False, -1))
            else:
                hard = difficulty[anchor, : len(pool)].astype(np.float64) + 0.05
                slot = rng.choice(len(pool), p=hard / hard.sum())
                drawn.append((anchor, pool[slot], 0.0, False, slot))
    rows = [[rng.choice(pairs.copies[picture]) for picture in pair[:2]] for pair in drawn]
    rows_a, rows_b = torch.tensor(np.array(rows)).unbind(dim=1)
    anchors, _, labels, is_doubtful, slots = zip(*drawn, strict=True)
    return Batch(
        rows_a,
        rows_b,
        torch.tensor(np.array(labels, np.float32)),
        torch.tensor(is_doubtful),
        np.array(anchors, np.int64),
        np.array(slots, np.int64),
    )


def _elsewhere(pairs: PairSet, anchor: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Look-alikes of a look-alike that share nothing with the anchor."""
    pool = pairs.lookalikes[rng.choice(pairs.lookalikes[anchor])]
    near = np.concatenate([pairs.positives[anchor], pairs.doubtful[anchor], [anchor]])
    far: NDArray[np.int64] = pool[~np.isin(pool, near)]
    return far


def batch_loss(model: ETR, pictures: Locals, batch: Batch, config: TrainConfig, step: int) -> tuple[Tensor, Tensor]:
    """The loss of a batch and its logits (N,); gates, where the model has any, learn from the verifier."""
    a, b = in_single_precision(pictures.select(batch.rows_a)), in_single_precision(pictures.select(batch.rows_b))
    a, b = vary(a, b, config, np.random.default_rng((config.seed, step, 1)))
    if model.gate is None or not isinstance(model.tokens, CorrelationTokens):
        logits = model(a, b)
        return pair_loss(logits, batch, config), logits
    of_a, of_b = correlate(a, b, model.config.max_tokens, model.config.best, model.config.summary)
    reading = model.read(model.tokens.embed(a, b, of_a, of_b))
    targets, weights = gate_targets(a, b, of_a, of_b, batch.labels)
    of_locals = reading.gates[:, -targets.shape[1] :]  # type: ignore[index]
    gate = F.binary_cross_entropy_with_logits(of_locals, targets, weights, reduction="sum") / weights.sum().clamp_min(1)
    return pair_loss(reading.logits, batch, config) + config.gate_weight * gate, reading.logits


def pair_loss(logits: Tensor, batch: Batch, config: TrainConfig) -> Tensor:
    """Binary cross-entropy over the pairs, the positive of a group weighing as much as all its negatives, plus
    cross-entropy of the positive within its group: the first makes the score a probability, the second the order
    right. Doubtful pairs count in the first only."""
    weights = torch.ones_like(batch.labels)
    weights[:: 1 + config.negatives] = float(config.negatives)
    same_place = F.binary_cross_entropy_with_logits(logits, batch.labels, weights)
    groups = logits.masked_fill(batch.is_doubtful, float("-inf")).view(config.anchors, 1 + config.negatives)
    order = F.cross_entropy(groups, torch.zeros(config.anchors, dtype=torch.long))
    return same_place + 0.5 * order


def in_single_precision(batch: Locals) -> Locals:
    """The same with float32 descriptors."""
    return Locals(batch.descriptors.float(), batch.xy, batch.scales, batch.mask, batch.global_descriptor)
