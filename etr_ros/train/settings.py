"""How long and how to train."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """How long and how to train. A step sees `anchors` groups of one positive and `negatives` negatives.

    Negatives are drawn from the look-alikes of the anchor, the more often the more they were last taken for the same
    place; of those never drawn all are thought hard. `doubtful_share` of the groups hold a pair that shares a little.
    """

    steps: int = 4000
    anchors: int = 12
    negatives: int = 3
    elsewhere_share: float = 0.2  # of the negatives, look-alikes of a look-alike: anywhere
    doubtful_share: float = 0.3
    varied_share: float = 0.8  # of the pairs, changed where ETR reads them, see `vary`
    gate_weight: float = 0.5  # of the loss of the gates, which learn from geometric verification
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 200
    average_decay: float = 0.995  # of the running mean of the weights, which is what is validated and kept
    seed: int = 0
    validate_every: int = 250
    patience: int = 8  # validations without a better one before the run ends early; 0: never
    validation_queries: int = 300
    top_k: int = 20
