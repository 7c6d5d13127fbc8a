"""ETR, the re-ranking transformer: one similarity score for a pair of pictures from their descriptors.

Zhang et al., "ETR: An Efficient Transformer for Re-ranking in Visual Place Recognition", WACV 2023.
Nothing but the model: no I/O, no device choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etr_ros.relations import RELATIONS, Points, relations
from etr_ros.tokens import CorrelationTokens, DescriptorTokens, Locals, Tokens, must_not_look

TOKENS = ("descriptor", "correlation")
ATTENTIONS = ("full", "linear")
POOLS = ("average", "gated")


@dataclass(frozen=True)
class EtrConfig:
    """Shape of an ETR. The defaults of `tokens`, `blocks`, `width`, `heads` and `ffn_width` are not the paper's:
    `EtrConfig.paper_s()` and `paper_d()` are.

    tokens: "descriptor" embeds the local descriptors themselves (the paper); "correlation" embeds how each local
    relates to the other picture's locals (best cosines, margin, mutuality, displacement), and keeps the `max_tokens`
    locals of each picture that match best. `max_locals` are read of each picture, strongest first.

    best: largest cosines that a correlation token holds. summary: one token more sums up how all locals match.
    consistent: a correlation token tells how many others move as it does, and full attention is told of each pair of
    matches whether they move alike.
    pool: "average" takes the mean of the tokens (the paper); "gated" adds their mean weighted by a gate, the
    probability that a token's match is right, which training can supervise.
    """

    extractor: str = "xfeat"
    local_dim: int = 64
    global_dim: int = 0  # 0: no global token (ETR-S); else its size (ETR-D)
    scales: int = 1
    max_locals: int = 384
    max_tokens: int = 64
    tokens: str = "correlation"
    attention: str = "full"
    pool: str = "gated"
    blocks: int = 2
    width: int = 48
    heads: int = 2
    ffn_width: int = 96
    best: int = 2
    summary: bool = True
    consistent: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (("tokens", TOKENS), ("attention", ATTENTIONS), ("pool", POOLS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}")
        counts = self.local_dim, self.scales, self.max_locals, self.max_tokens, self.blocks, self.heads, self.ffn_width
        if min(*counts, self.best) < 1:
            raise ValueError("sizes must be at least 1")
        if self.width < 1 or self.width % self.heads:
            raise ValueError("width must be a multiple of heads")

    @staticmethod
    def paper_s() -> EtrConfig:
        """ETR-S of the authors: SuperPoint locals only."""
        return EtrConfig("superpoint", 256, 0, 1, 500, 500, "descriptor", "full", "average", 3, 128, 8, 1024)

    @staticmethod
    def paper_d() -> EtrConfig:
        """ETR-D of the authors: DELG locals over 7 scales and the DELG global descriptor."""
        return EtrConfig("delg-r50", 128, 2048, 7, 500, 500, "descriptor", "full", "average", 3, 128, 8, 1024)


class Attention(nn.Module):
    """Multi-head attention of `x` over `source`; full softmax, or linear with the feature map elu + 1
    (Katharopoulos et al., "Transformers are RNNs", 2020), whose cost grows with L instead of L*L."""

    def __init__(self, width: int, heads: int, kind: str, consistent: bool) -> None:
        super().__init__()
        self.heads, self.kind = heads, kind
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.bias = nn.Linear(RELATIONS, heads, bias=False) if consistent and kind == "full" else None

    def forward(self, x: Tensor, source: Tensor, source_mask: Tensor, related: Tensor | None) -> Tensor:
        """x (B, L, W), source (B, S, W), source_mask (B, S) of the source's own padding, relations of their tokens
        (RELATIONS, B, L, S) -> (B, L, W)."""
        q = self._split(self.query(x))  # (B, H, L, W/H)
        k, v = (self._split(part) for part in self.key_value(source).chunk(2, dim=-1))  # (B, H, S, W/H)
        if self.kind == "full":
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._added(source_mask, related))
        else:
            q = F.elu(q) + 1
            k = (F.elu(k) + 1) * source_mask[:, None, :, None]
            summary = k.transpose(2, 3) @ v  # (B, H, W/H, W/H)
            total = (q * k.sum(dim=2, keepdim=True)).sum(dim=-1, keepdim=True)  # (B, H, L, 1)
            mixed = q @ summary / total.clamp_min(1e-6)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _added(self, source_mask: Tensor, related: Tensor | None) -> Tensor | None:
        """What is added to the logits of attention, or None, which is faster."""
        # a picture without any token attends to its padding: an even mix instead of 0/0
        unmasked = not must_not_look(source_mask) and bool(source_mask.all())
        visible = None if unmasked else (source_mask | ~source_mask.any(dim=1, keepdim=True))[:, None, None, :]
        if self.bias is None or related is None:
            return visible
        bias = (self.bias.weight @ related.flatten(1)).view(-1, *related.shape[1:]).transpose(0, 1)  # (B, H, L, S)
        return bias if visible is None else bias.masked_fill(~visible, float("-inf"))

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Attention, then a two-layer FFN, each with a residual and a LayerNorm behind it (post-norm)."""

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        consistent = config.consistent and config.tokens == "correlation"
        self.attention = Attention(config.width, config.heads, config.attention, consistent)
        self.ffn = nn.Sequential(
            nn.Linear(config.width, config.ffn_width), nn.ReLU(), nn.Linear(config.ffn_width, config.width)
        )
        self.norm_attention = nn.LayerNorm(config.width)
        self.norm_ffn = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, source: Tensor, source_mask: Tensor, related: Tensor | None) -> Tensor:
        x = self.norm_attention(x + self.attention(x, source, source_mask, related))
        return self.norm_ffn(x + self.ffn(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Self-attention inside each picture, then cross-attention between the two; the pictures share the weights."""

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        self.self_layer = Layer(config)
        self.cross_layer = Layer(config)

    def forward(self, x: Tensor, mask: Tensor, within: Tensor | None, across: Tensor | None) -> Tensor:
        """Tokens (2B, T, W) and their mask (2B, T): the B pictures of one side, then the B of the other; and how their
        matches relate within a picture and to those of the other, (RELATIONS, 2B, T, T)."""
        x = self.self_layer(x, x, mask, within)
        return self.cross_layer(x, _swap_sides(x), _swap_sides(mask), across)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What ETR says of B pairs: `logits` (B,) that they show the same place; the gate of each token as logits
    (2B, T), None without gates; and each token's mask (2B, T). A global token stands in front."""

    logits: Tensor
    gates: Tensor | None
    mask: Tensor


class ETR(nn.Module):
    """Score of picture pairs; symmetric in the two pictures and blind to the order of the locals."""

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = CorrelationTokens(config) if config.tokens == "correlation" else DescriptorTokens(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.gate = nn.Linear(config.width, 1) if config.pool == "gated" else None
        pooled = config.width * (2 if self.gate else 1)
        self.head = nn.Sequential(nn.Linear(2 * pooled, config.width), nn.ReLU(), nn.Linear(config.width, 1))

    def forward(self, a: Locals, b: Locals) -> Tensor:
        """Logits (B,) that `a` and `b` (B pictures each, any number of locals) show the same place."""
        return self.read(self.tokens(a, b)).logits

    def read(self, tokens: Tokens) -> Reading:
        """The same from the tokens of both sides."""
        x, mask = tokens.values, tokens.mask  # (2B, T, W), (2B, T)
        within, across = _related(tokens) if self.config.attention == "full" else (None, None)
        for block in self.blocks:
            x = block(x, mask, within, across)
        gates = None if self.gate is None else self.gate(x).squeeze(2)  # (2B, T)
        pooled = average(x, mask)  # (2B, W)
        if gates is not None:
            pooled = torch.cat([pooled, average(x * gates.sigmoid()[..., None], mask)], dim=1)  # (2B, 2W)
        pooled_a, pooled_b = _sides(pooled)
        pair = torch.cat([pooled_a + pooled_b, (pooled_a - pooled_b).abs()], dim=1)
        return Reading(self.head(pair).squeeze(1), gates, mask)


def average(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of the tokens that are not padding, (B, L, W) -> (B, W); zeros for a picture without any."""
    weights = mask[..., None].to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)


def _related(tokens: Tokens) -> tuple[Tensor | None, Tensor | None]:
    """How the matches of each picture relate to one another and to those of the other picture, (RELATIONS, 2B, T, T);
    0 for the tokens in front."""
    if tokens.points is None or tokens.within is None:
        return None, None
    (own_a, own_b), (matched_a, matched_b) = _sides(tokens.points.own), _sides(tokens.points.matched)
    across = relations(Points(own_a, matched_a), Points(matched_b, own_b), tokens.leading)  # (RELATIONS, B, T, T)
    return tokens.within, torch.cat([across, across.transpose(2, 3)], dim=1)


def _sides(x: Tensor) -> tuple[Tensor, Tensor]:
    half = x.shape[0] // 2
    return x[:half], x[half:]


def _swap_sides(x: Tensor) -> Tensor:
    return torch.cat(_sides(x)[::-1])
