"""What ETR reads of two pictures: their locals, and the tokens that are made of them. No I/O, no device choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etr_ros.relations import SUPPORT, Points, relations, support

if TYPE_CHECKING:
    from etr_ros.etr import EtrConfig

FREQUENCIES = 4
POINTS = 3  # own position, matched position, displacement
GRID = 4  # cells of a summary, across and down
SUMMARY = 3 * GRID * GRID + 1
COSINES_AT_ONCE = 1 << 17  # of the locals of pairs, so that they stay in the cache of a processor


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


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest neighbours of B pairs by cosine: of each local of the first picture its partner in the second,
    (B, La), that largest cosine, the largest of each local of the second (B, Lb), and which of the first are mutual."""

    partners: Tensor
    largest: Tensor
    largest_back: Tensor
    mutual: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The T locals of each of B pictures that match the other picture best, mutual nearest neighbours first.

    `summary` tells what the kept ones do not: of each cell of a grid over the picture the share of all locals, their
    mean largest cosine and how many of them are mutual; and the cosine of the global descriptors, 0 without any. None
    when it was not asked for.
    """

    rows: Tensor  # (B, T) which locals
    partners: Tensor  # (B, T) the row of the nearest local in the other picture
    cosines: Tensor  # (B, T, best) the largest cosines, -1 where there are fewer
    mutual: Tensor  # (B, T) bool, the two are each other's nearest
    mask: Tensor  # (B, T) bool, False = padding
    summary: Tensor | None  # (B, SUMMARY)


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What the blocks of ETR read of B pairs, the B pictures of one side, then the B of the other: the tokens
    (2B, T, W) and their mask (2B, T), False = padding; where the matches are that they stand for, and how these relate
    to one another, when the attention is told of it; `leading` tokens in front stand for the whole picture."""

    values: Tensor
    mask: Tensor
    points: Points | None = None
    within: Tensor | None = None  # (RELATIONS, 2B, T, T)
    leading: int = 0


@torch.no_grad()
def correlate(a: Locals, b: Locals, count: int, best: int = 2, with_summary: bool = True) -> tuple[Matches, Matches]:
    """The best `count` matches as `a` sees them and as `b` sees them, by cosine of the local descriptors; of each the
    `best` largest cosines.

    Of all cosines of a pair only the maxima of rows and columns are taken, see `nearest_neighbours`; what else a match
    needs is computed for the kept ones alone.
    """
    nearest = nearest_neighbours(a, b)
    mutual_a, (size, length_b) = nearest.mutual, b.mask.shape
    mutual_b = torch.zeros(size, length_b + 1, dtype=torch.bool, device=b.xy.device)
    mutual_b = mutual_b.scatter(1, nearest.partners.masked_fill(~mutual_a, length_b), True)[:, :-1] & b.mask
    alike = _global_cosine(a, b) if with_summary else None
    return (
        _kept(a, b, nearest.largest, mutual_a, alike, count, best),
        _kept(b, a, nearest.largest_back, mutual_b, alike, count, best),
    )


def nearest_neighbours(a: Locals, b: Locals) -> Nearest:
    """Of each local of `a` the most similar one of `b`; a few pairs at a time, so that the cosines stay in cache."""
    partners, largest, largest_back = _maxima_at_once(a, b) if must_not_look(a.xy) else _maxima(a, b)
    mutual = (largest_back.gather(1, partners) == largest) & a.mask
    return Nearest(partners, largest, largest_back, mutual)


def must_not_look(x: Tensor) -> bool:
    """Whether nothing may depend on the numbers in `x` but other tensors: a GPU would have to be waited for, and a call
    that is recorded for an export holds for all numbers."""
    return x.is_cuda or torch.compiler.is_compiling()


def _maxima(a: Locals, b: Locals) -> tuple[Tensor, Tensor, Tensor]:
    """Of the cosines of each pair: the column of the largest of each row (B, La), its value, largest of columns."""
    size, length_a, length_b = len(a), a.mask.shape[1], b.mask.shape[1]
    best_a, best_b = a.xy.new_empty(size, length_a), b.xy.new_empty(size, length_b)
    partner_a = torch.empty(size, length_a, dtype=torch.long, device=a.xy.device)
    all_visible = bool(a.mask.all() and b.mask.all())
    at_once = max(1, COSINES_AT_ONCE // (length_a * length_b))
    cosines = a.xy.new_empty(min(size, at_once), length_a, length_b)
    for start in range(0, size, at_once):
        pairs = slice(start, min(size, start + at_once))
        here = cosines[: pairs.stop - start]
        torch.bmm(a.descriptors[pairs].float(), b.descriptors[pairs].float().transpose(1, 2), out=here)
        if not all_visible:
            here.masked_fill_(~(a.mask[pairs, :, None] & b.mask[pairs, None]), -1.0)
        partner_a[pairs] = argmax(here)
        best_a[pairs] = here.gather(2, partner_a[pairs, :, None]).squeeze(2)
        torch.amax(here, dim=1, out=best_b[pairs])
    return partner_a, best_a, best_b


def _maxima_at_once(a: Locals, b: Locals) -> tuple[Tensor, Tensor, Tensor]:
    cosines = _cosines(a.descriptors, b.descriptors)  # (B, La, Lb)
    cosines = cosines.masked_fill(~(a.mask[:, :, None] & b.mask[:, None]), -1.0)
    best_a, partner_a = cosines.max(dim=2)
    return partner_a, best_a, cosines.amax(dim=1)


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """(B, L, D) and (B, M, D), L2-normalised -> (B, L, M) in single precision, also where a GPU computes all else in
    half: matches must be those that a processor finds."""
    x, y = a.float(), b.float().transpose(1, 2)
    if torch.compiler.is_compiling():
        return x @ y
    return torch.bmm(x, y, out=x.new_empty(len(x), x.shape[1], y.shape[2]))  # what is given, autocast leaves alone


def _kept(
    x: Locals, other: Locals, largest: Tensor, mutual: Tensor, alike: Tensor | None, count: int, best: int
) -> Matches:
    quality = (largest + 2.0 * mutual).masked_fill(~x.mask, -2.0)
    kept = count if quality.shape[1] >= count else quality.shape[1]  # not min(): an export then knows the number
    rows = quality.topk(kept, dim=1).indices  # (B, T)
    cosines = _cosines(take(x.descriptors, rows), other.descriptors)  # (B, T, L_other)
    if must_not_look(other.mask) or not other.mask.all():
        cosines = cosines.masked_fill(~other.mask[:, None, :], -1.0)
    partners = column = argmax(cosines)
    values = [cosines.gather(2, column[..., None])]
    for _ in range(best - 1):
        cosines.scatter_(2, column[..., None], -1.0)
        column = argmax(cosines)
        values.append(cosines.gather(2, column[..., None]))
    summary = None if alike is None else torch.cat([_by_cell(x, largest, mutual), alike], dim=1)
    return Matches(rows, partners, torch.cat(values, dim=2), mutual.gather(1, rows), x.mask.gather(1, rows), summary)


def _by_cell(x: Locals, best: Tensor, mutual: Tensor) -> Tensor:
    """(B, 3 * GRID * GRID): share of the locals, mean largest cosine, share of mutual ones in each cell."""
    cell = ((x.xy * x.xy.new_tensor([0.5, 0.65]) + 0.5) * GRID).long().clamp(0, GRID - 1)  # (B, L, 2)
    number = (cell[..., 1] * GRID + cell[..., 0]).masked_fill(~x.mask, -1)  # (B, L)
    inside = (number[..., None] == torch.arange(GRID * GRID, device=number.device)).to(best.dtype)
    values = torch.stack([x.mask.to(best.dtype), best.clamp_min(0.0), mutual.to(best.dtype)], dim=1)  # (B, 3, L)
    sums = values @ inside  # (B, 3, GRID * GRID)
    count = sums[:, :1]
    means = sums[:, 1:] / count.clamp_min(1.0)
    return torch.cat([count * (GRID / count.sum(dim=2, keepdim=True).clamp_min(1.0)), means], dim=1).flatten(1)


def _global_cosine(a: Locals, b: Locals) -> Tensor:
    if a.global_descriptor is None or b.global_descriptor is None:
        return a.xy.new_zeros(a.xy.shape[0], 1)
    return F.cosine_similarity(a.global_descriptor, b.global_descriptor, dim=1)[:, None].to(a.xy.dtype)


def argmax(x: Tensor) -> Tensor:
    """Columns of the largest values; on a CPU NumPy finds them ten times faster than torch."""
    return x.argmax(dim=-1) if must_not_look(x) else torch.from_numpy(x.numpy().argmax(axis=-1))


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, T) of x (B, L, C) -> (B, T, C)."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[2]))


class DescriptorTokens(nn.Module):
    """The paper's tokens: a linear map of the local descriptor, an embedding of its scale and one that says "local";
    in front of them, where there is a global descriptor, its linear map and the embedding "global"."""

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        self.local = nn.Linear(config.local_dim, config.width)
        self.scale = nn.Embedding(config.scales, config.width)
        self.segment = nn.Embedding(2, config.width)  # 0 = local, 1 = global
        self.globals = nn.Linear(config.global_dim, config.width) if config.global_dim else None

    def forward(self, a: Locals, b: Locals) -> Tokens:
        """The tokens of a and of b, one for each local."""
        descriptors, scales = stack_sides(a.descriptors, b.descriptors), stack_sides(a.scales, b.scales)
        values = self.local(descriptors) + self.scale(scales.long()) + self.segment.weight[0]  # (2B, L, W)
        return with_global_token(Tokens(values, stack_sides(a.mask, b.mask)), a, b, self.globals, self.segment)


class CorrelationTokens(nn.Module):
    """What geometric verification looks at, as tokens: of each local its `best` highest cosines in the other picture,
    the margin between the first two, whether the best match is mutual, where it is, where its match is and how far
    apart the two lie (Fourier features), and the embedding of its scale. Only the best matching locals of each picture
    become tokens, see `correlate`. In front of them stand a token of the matches' summary, if the model has one, and
    the global token as in `DescriptorTokens`."""

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        size = config.best + 2 + POINTS * 2 * (1 + 2 * FREQUENCIES) + SUPPORT * config.consistent
        self.max_tokens, self.best, self.consistent = config.max_tokens, config.best, config.consistent
        self.local = nn.Sequential(nn.Linear(size, config.width), nn.ReLU(), nn.Linear(config.width, config.width))
        self.summary: nn.Module | None = None
        if config.summary:
            hidden = nn.Linear(SUMMARY, config.width)
            self.summary = nn.Sequential(hidden, nn.ReLU(), nn.Linear(config.width, config.width))
        self.scale = nn.Embedding(config.scales, config.width)
        self.segment = nn.Embedding(2, config.width)
        self.globals = nn.Linear(config.global_dim, config.width) if config.global_dim else None

    def forward(self, a: Locals, b: Locals) -> Tokens:
        """The tokens of a and of b, T each."""
        return self.embed(a, b, *correlate(a, b, self.max_tokens, self.best, self.summary is not None))

    def embed(self, a: Locals, b: Locals, of_a: Matches, of_b: Matches) -> Tokens:
        """The same from matches that are known."""
        points = Points(
            stack_sides(take(a.xy, of_a.rows), take(b.xy, of_b.rows)),
            stack_sides(take(b.xy, of_a.partners), take(a.xy, of_b.partners)),
        )
        cosines, is_mutual = stack_sides(of_a.cosines, of_b.cosines), stack_sides(of_a.mutual, of_b.mutual)
        mask = stack_sides(of_a.mask, of_b.mask)
        scales = stack_sides(a.scales.gather(1, of_a.rows), b.scales.gather(1, of_b.rows))
        where = torch.cat([points.own, points.matched, points.matched - points.own], dim=-1)  # (2B, T, 6)
        margin = cosines[..., :1] - cosines[..., 1:2]
        described = [cosines, margin, is_mutual[..., None].to(where.dtype), _fourier(where)]
        leading = (self.summary is not None) + (self.globals is not None)
        points = points.behind(leading)
        within = relations(points, points, leading) if self.consistent else None
        if within is not None:
            described.append(support(within, leading, (is_mutual & mask).to(where.dtype)))
        values = self.local(torch.cat(described, dim=-1)) + self.scale(scales.long()) + self.segment.weight[0]
        tokens = Tokens(values, mask, None if within is None else points, within)  # (2B, T, W)
        if self.summary is not None and of_a.summary is not None and of_b.summary is not None:
            tokens = in_front(self.summary(torch.cat([of_a.summary, of_b.summary])), tokens)
        return with_global_token(tokens, a, b, self.globals, self.segment)


def _fourier(points: Tensor) -> Tensor:
    """(B, T, P) -> (B, T, P * (1 + 2 * FREQUENCIES)): the values, and sin and cos of them at octaves."""
    octaves = math.pi * 2.0 ** torch.arange(FREQUENCIES, device=points.device, dtype=points.dtype)
    phases = (points[..., None] * octaves).flatten(2)
    return torch.cat([points, phases.sin(), phases.cos()], dim=-1)


def with_global_token(tokens: Tokens, a: Locals, b: Locals, project: nn.Linear | None, segment: nn.Embedding) -> Tokens:
    """`tokens`, led by the token of the global descriptor when the model has one."""
    if project is None:
        return tokens
    if a.global_descriptor is None or b.global_descriptor is None:
        raise ValueError("this ETR reads a global descriptor, but the features carry none")
    return in_front(project(torch.cat([a.global_descriptor, b.global_descriptor])) + segment.weight[1], tokens)


def stack_sides(a: Tensor, b: Tensor) -> Tensor:
    """(B, T, ...) and (B, S, ...), the shorter padded with zeros, one behind the other (2B, max(T, S), ...)."""
    short = a.shape[1] - b.shape[1]
    if short:
        padding = [0, 0] * (a.dim() - 2)
        a, b = F.pad(a, [*padding, 0, max(0, -short)]), F.pad(b, [*padding, 0, max(0, short)])
    return torch.cat([a, b])


def in_front(first: Tensor, tokens: Tokens) -> Tokens:
    """`tokens` led by the token `first` (2B, W)."""
    values = torch.cat([first[:, None], tokens.values], dim=1)
    mask = F.pad(tokens.mask, (1, 0), value=True)
    return Tokens(values, mask, tokens.points, tokens.within, tokens.leading + 1)
