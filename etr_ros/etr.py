"""ETR, the re-ranking transformer: one similarity score for a pair of pictures from their descriptors.

Zhang et al., "ETR: An Efficient Transformer for Re-ranking in Visual Place Recognition", WACV 2023.
Nothing but the model: no I/O, no device choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS = ("descriptor", "correlation")
ATTENTIONS = ("full", "linear")


@dataclass(frozen=True)
class EtrConfig:
    """Shape of an ETR. The defaults of `tokens`, `blocks`, `width`, `heads` and `ffn_width` are not the paper's:
    `EtrConfig.paper_s()` and `paper_d()` are.

    tokens: "descriptor" embeds the local descriptors themselves (the paper); "correlation" embeds how each local
    relates to the other picture's locals (best cosines, margin, mutuality, displacement), and keeps the `max_tokens`
    locals of each picture that match best. `max_locals` are read of each picture, strongest first.
    """

    extractor: str = "xfeat"
    local_dim: int = 64
    global_dim: int = 0  # 0: no global token (ETR-S); else its size (ETR-D)
    scales: int = 1
    max_locals: int = 512
    max_tokens: int = 128
    tokens: str = "correlation"
    attention: str = "full"
    blocks: int = 2
    width: int = 64
    heads: int = 4
    ffn_width: int = 128

    def __post_init__(self) -> None:
        if self.tokens not in TOKENS or self.attention not in ATTENTIONS:
            raise ValueError(f"tokens must be one of {TOKENS} and attention one of {ATTENTIONS}")
        counts = self.local_dim, self.scales, self.max_locals, self.max_tokens, self.blocks, self.heads, self.ffn_width
        if min(counts) < 1:
            raise ValueError("sizes must be at least 1")
        if self.width < 1 or self.width % self.heads:
            raise ValueError("width must be a multiple of heads")

    @staticmethod
    def paper_s() -> EtrConfig:
        """ETR-S of the authors: SuperPoint locals only."""
        return EtrConfig("superpoint", 256, 0, 1, 500, 500, "descriptor", "full", 3, 128, 8, 1024)

    @staticmethod
    def paper_d() -> EtrConfig:
        """ETR-D of the authors: DELG locals over 7 scales and the DELG global descriptor."""
        return EtrConfig("delg-r50", 128, 2048, 7, 500, 500, "descriptor", "full", 3, 128, 8, 1024)


@dataclass(frozen=True, slots=True, eq=False)
class Locals:
    """The padded local features of B pictures, as ETR reads them.

    `xy` is in units of half the longer picture side, origin in the centre, so |x|, |y| <= 1 for any picture size.
    """

    descriptors: Tensor  # (B, L, D) L2-normalised
    xy: Tensor  # (B, L, 2)
    scales: Tensor  # (B, L) integer
    mask: Tensor  # (B, L) bool, False = padding
    global_descriptor: Tensor | None = None  # (B, G)

    def __len__(self) -> int:
        return len(self.descriptors)

    def expand(self, batch: int) -> Locals:
        """A single picture (B = 1) seen `batch` times, without copying."""
        return Locals(*(None if t is None else t.expand(batch, *t.shape[1:]) for t in self._tensors()))  # type: ignore[arg-type]

    def select(self, rows: Tensor | slice) -> Locals:
        """The pictures `rows`."""
        return Locals(*(None if t is None else t[rows] for t in self._tensors()))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Locals:
        """The same on `device`."""
        return Locals(*(None if t is None else t.to(device) for t in self._tensors()))  # type: ignore[arg-type]

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.descriptors, self.xy, self.scales, self.mask, self.global_descriptor


class Attention(nn.Module):
    """Multi-head attention of `x` over `source`; full softmax, or linear with the feature map elu + 1
    (Katharopoulos et al., "Transformers are RNNs", 2020), whose cost grows with L instead of L*L."""

    def __init__(self, width: int, heads: int, kind: str) -> None:
        super().__init__()
        self.heads, self.kind = heads, kind
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor, source_mask: Tensor) -> Tensor:
        """x (B, L, W), source (B, S, W), source_mask (B, S) of the source's own padding -> (B, L, W)."""
        q = self._split(self.query(x))  # (B, H, L, W/H)
        k, v = (self._split(part) for part in self.key_value(source).chunk(2, dim=-1))  # (B, H, S, W/H)
        if self.kind == "full":
            # no mask is faster; a picture without any token attends to its padding: an even mix instead of 0/0
            visible = None if source_mask.all() else source_mask | ~source_mask.any(dim=1, keepdim=True)
            mixed = F.scaled_dot_product_attention(
                q, k, v, attn_mask=None if visible is None else visible[:, None, None, :]
            )
        else:
            q = F.elu(q) + 1
            k = (F.elu(k) + 1) * source_mask[:, None, :, None]
            summary = k.transpose(2, 3) @ v  # (B, H, W/H, W/H)
            total = (q * k.sum(dim=2, keepdim=True)).sum(dim=-1, keepdim=True)  # (B, H, L, 1)
            mixed = q @ summary / total.clamp_min(1e-6)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Attention, then a two-layer FFN, each with a residual and a LayerNorm behind it (post-norm)."""

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, config.attention)
        self.ffn = nn.Sequential(
            nn.Linear(config.width, config.ffn_width), nn.ReLU(), nn.Linear(config.ffn_width, config.width)
        )
        self.norm_attention = nn.LayerNorm(config.width)
        self.norm_ffn = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, source: Tensor, source_mask: Tensor) -> Tensor:
        x = self.norm_attention(x + self.attention(x, source, source_mask))
        return self.norm_ffn(x + self.ffn(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Self-attention inside each picture, then cross-attention between the two; the pictures share the weights."""

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        self.self_layer = Layer(config)
        self.cross_layer = Layer(config)

    def forward(self, a: Tensor, b: Tensor, mask_a: Tensor, mask_b: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.self_layer(a, a, mask_a), self.self_layer(b, b, mask_b)
        return self.cross_layer(a, b, mask_b), self.cross_layer(b, a, mask_a)


class DescriptorTokens(nn.Module):
    """The paper's tokens: a linear map of the local descriptor, an embedding of its scale and one that says "local";
    in front of them, where there is a global descriptor, its linear map and the embedding "global"."""

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        self.local = nn.Linear(config.local_dim, config.width)
        self.scale = nn.Embedding(config.scales, config.width)
        self.segment = nn.Embedding(2, config.width)  # 0 = local, 1 = global
        self.globals = nn.Linear(config.global_dim, config.width) if config.global_dim else None

    def forward(self, a: Locals, b: Locals) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return *self._embed(a), *self._embed(b)

    def _embed(self, x: Locals) -> tuple[Tensor, Tensor]:
        tokens = self.local(x.descriptors) + self.scale(x.scales.long()) + self.segment.weight[0]  # (B, L, W)
        return with_global_token(tokens, x.mask, x.global_descriptor, self.globals, self.segment)


class CorrelationTokens(nn.Module):
    """What geometric verification looks at, as tokens: of each local its `BEST` highest cosines in the other picture,
    the margin between the first two, whether the best match is mutual, where it is, where its match is and how far
    apart the two lie (Fourier features), and the embedding of its scale. Only the best matching locals of each picture
    become tokens, mutual matches first. Global token as in `DescriptorTokens`."""

    BEST = 3
    FREQUENCIES = 4
    POINTS = 3  # own position, matched position, displacement

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        size = self.BEST + 2 + self.POINTS * 2 * (1 + 2 * self.FREQUENCIES)
        self.max_tokens = config.max_tokens
        self.local = nn.Sequential(nn.Linear(size, config.width), nn.ReLU(), nn.Linear(config.width, config.width))
        self.scale = nn.Embedding(config.scales, config.width)
        self.segment = nn.Embedding(2, config.width)
        self.globals = nn.Linear(config.global_dim, config.width) if config.global_dim else None

    def forward(self, a: Locals, b: Locals) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        best_ab, best_ba = self._best(a, b), self._best(b, a)
        return *self._embed(a, b, best_ab, best_ba), *self._embed(b, a, best_ba, best_ab)

    def _best(self, x: Locals, other: Locals) -> tuple[Tensor, Tensor]:
        """Of each local of `x` its `BEST` largest cosines in `other`, (B, L, BEST), padded with -1 when there are
        fewer, and the row of the best, (B, L)."""
        cosines = x.descriptors @ other.descriptors.transpose(1, 2)  # (B, L, L_other)
        if not other.mask.all():
            cosines = cosines.masked_fill(~other.mask[:, None, :], -1.0)
        values, columns = cosines.topk(min(self.BEST, cosines.shape[2]), dim=2)
        return F.pad(values, (0, self.BEST - values.shape[2]), value=-1.0), columns[..., 0]

    def _embed(
        self, x: Locals, other: Locals, best: tuple[Tensor, Tensor], best_of_other: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        values, match = best  # (B, L, BEST), (B, L)
        rows = torch.arange(match.shape[1], device=match.device)
        mutual = (best_of_other[1].gather(1, match) == rows).to(values.dtype)  # (B, L)
        quality = (values[..., 0] + mutual).masked_fill(~x.mask, -2.0)
        kept = quality.topk(min(self.max_tokens, quality.shape[1]), dim=1).indices  # (B, T)
        values, match, mutual = _take(values, kept), match.gather(1, kept), mutual.gather(1, kept)
        own_xy, matched_xy = _take(x.xy, kept), _take(other.xy, match)  # (B, T, 2)
        points = torch.cat([own_xy, matched_xy, matched_xy - own_xy], dim=-1)  # (B, T, 6)
        margin = values[..., :1] - values[..., 1:2]
        described = torch.cat([values, margin, mutual[..., None], self._fourier(points)], dim=-1)
        scale = self.scale(x.scales.gather(1, kept).long())
        tokens = self.local(described) + scale + self.segment.weight[0]  # (B, T, W)
        return with_global_token(tokens, x.mask.gather(1, kept), x.global_descriptor, self.globals, self.segment)

    def _fourier(self, points: Tensor) -> Tensor:
        """(B, T, P) -> (B, T, P * (1 + 2 * FREQUENCIES)): the values, and sin and cos of them at octaves."""
        octaves = math.pi * 2.0 ** torch.arange(self.FREQUENCIES, device=points.device, dtype=points.dtype)
        phases = (points[..., None] * octaves).flatten(2)
        return torch.cat([points, phases.sin(), phases.cos()], dim=-1)


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, T) of x (B, L, C) -> (B, T, C)."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[2]))


def with_global_token(
    tokens: Tensor, mask: Tensor, global_descriptor: Tensor | None, project: nn.Linear | None, segment: nn.Embedding
) -> tuple[Tensor, Tensor]:
    """`tokens` and their mask, led by the token of the global descriptor when the model has one."""
    if project is None:
        return tokens, mask
    if global_descriptor is None:
        raise ValueError("this ETR reads a global descriptor, but the features carry none")
    first = (project(global_descriptor) + segment.weight[1])[:, None]  # (B, 1, W)
    return torch.cat([first, tokens], dim=1), F.pad(mask, (1, 0), value=True)


class ETR(nn.Module):
    """Score of picture pairs; symmetric in the two pictures and blind to the order of the locals."""

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = CorrelationTokens(config) if config.tokens == "correlation" else DescriptorTokens(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.head = nn.Sequential(nn.Linear(2 * config.width, config.width), nn.ReLU(), nn.Linear(config.width, 1))

    def forward(self, a: Locals, b: Locals) -> Tensor:
        """Logits (B,) that `a` and `b` (B pictures each, any number of locals) show the same place."""
        tokens_a, mask_a, tokens_b, mask_b = self.tokens(a, b)  # (B, L, W), (B, L), ...
        for block in self.blocks:
            tokens_a, tokens_b = block(tokens_a, tokens_b, mask_a, mask_b)
        pooled_a, pooled_b = average(tokens_a, mask_a), average(tokens_b, mask_b)  # (B, W)
        pair = torch.cat([pooled_a + pooled_b, (pooled_a - pooled_b).abs()], dim=1)
        return self.head(pair).squeeze(1)  # type: ignore[no-any-return]


def average(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of the tokens that are not padding, (B, L, W) -> (B, W); zeros for a picture without any."""
    weights = mask[..., None].to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)
