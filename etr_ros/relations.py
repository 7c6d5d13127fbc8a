"""Which matches of a picture pair move alike: what tells one rigid scene from chance. No I/O, no device choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCES = 0.03, 0.2  # of relative disagreement
NEAR = 0.25  # distance of matches that a smooth surface carries along, in half sides
SUPPORT = 2 * len(TOLERANCES)
RELATIONS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Where the matches of B pictures are: (B, T, 2) in the picture itself and in the other one."""

    own: Tensor
    matched: Tensor

    def behind(self, leading: int) -> Points:
        """The same behind so many points in front, which stand for no match."""
        return Points(F.pad(self.own, (0, 0, leading, 0)), F.pad(self.matched, (0, 0, leading, 0)))


def disagreement(x: Points, y: Points) -> tuple[Tensor, Tensor]:
    """How far each match of `x` (T) and each of `y` (S) are from moving alike, and how far apart they are, (B, T, S).

    With u and v the vectors between the two matches in either picture it is |u - v|^2 / (|u|^2 + |v|^2): 0 for the
    same shift, small for a small turn or zoom, 1 for unrelated vectors, and at most 2 (spatial consistency, Leordeanu
    and Hebert 2005). The distance is the root mean square of |u| and |v|, in half sides.
    """
    apart = _square_distances([x.own - x.matched], [y.own - y.matched])
    lengths = _square_distances([x.own, x.matched], [y.own, y.matched])
    return apart.div_(lengths + 1e-4), lengths.mul_(0.5).sqrt_()


def _square_distances(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    """Of points (B, T, 2) and (B, S, 2), summed over several such pairs -> (B, T, S).

    Coordinate by coordinate: a product would lose what is small to half precision, and to float32 as well.
    """
    of_x, of_y = (torch.cat(list(points), dim=2).permute(2, 0, 1).contiguous() for points in (x, y))
    total = (of_x[0][:, :, None] - of_y[0][:, None]).square_()
    for one, other in zip(of_x[1:], of_y[1:], strict=True):
        apart = one[:, :, None] - other[:, None]
        total.addcmul_(apart, apart)
    return total


def relations(x: Points, y: Points, leading: int = 0) -> Tensor:
    """What attention is told of pairs of matches, (RELATIONS, B, T, S): disagreement, whether it is very small, and
    distance; 0 for the `leading` points in front, which stand for no match."""
    off, distance = disagreement(x, y)
    told = torch.stack([off, (off * (-1 / TOLERANCES[0])).exp_(), distance])
    told[:, :, :leading] = 0.0
    told[..., :leading] = 0.0
    return told


def support(within: Tensor, leading: int, weights: Tensor) -> Tensor:
    """How many of the other matches, weighted by `weights` (B, T), move as each one does, (B, T, SUPPORT) as
    logarithms: at each tolerance anywhere in the picture, and nearby. `within` are the relations of the matches, with
    `leading` points in front of them."""
    off, alike, distance = within
    near = (distance * (1 / NEAR)).square_().neg_().exp_()
    behind = F.pad(weights, (leading, 0))[..., None]  # those in front weigh nothing
    counts = []
    for tolerance in TOLERANCES:
        if tolerance != TOLERANCES[0]:
            alike = (off * (-1 / tolerance)).exp_()
        counts += [alike @ behind, (alike * near) @ behind]
    return (torch.cat(counts, dim=-1)[:, leading:] - weights[..., None]).clamp_min(0.0).log1p()  # all but itself
