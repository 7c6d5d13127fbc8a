"""What a pair costs a re-ranker: parameters and multiply-adds, counted from its shape."""

from __future__ import annotations

from etr_ros.etr import ETR, EtrConfig
from etr_ros.relations import RELATIONS, SUPPORT
from etr_ros.tokens import FREQUENCIES, POINTS


def parameters(config: EtrConfig) -> int:
    """Trained numbers of an ETR."""
    return sum(parameter.numel() for parameter in ETR(config).parameters())


def macs_per_pair(config: EtrConfig) -> int:
    """Multiply-adds for one pair of pictures with `max_locals` locals each: correlations, tokens, all layers."""
    width, locals_ = config.width, config.max_locals
    tokens = config.max_tokens if config.tokens == "correlation" else locals_
    if config.tokens == "correlation":
        size = config.best + 2 + POINTS * 2 * (1 + 2 * FREQUENCIES) + SUPPORT * config.consistent
        before = locals_ * locals_ * config.local_dim + 2 * tokens * (
            locals_ * config.local_dim + size * width + width * width
        )
        distances = 6  # multiply-adds for the two squared distances of a pair of matches
        before += 2 * tokens * tokens * (3 * distances + SUPPORT) * config.consistent
    else:
        before = 2 * tokens * config.local_dim * width
    length = tokens + bool(config.global_dim)
    mixing = 2 * length * width if config.attention == "full" else 2 * width * width // config.heads
    if config.consistent and config.attention == "full":
        mixing += length * RELATIONS * config.heads
    layer = 4 * width * width + 2 * width * config.ffn_width + mixing
    return before + 2 * length * 2 * config.blocks * layer
