"""The architecture of Reranking Transformers (Tan et al., ICCV 2021), to compare with under the same training.

Both pictures' global and local descriptors form one sequence behind a class token; plain self-attention reads it, and
the class token gives the similarity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from etr_ros.etr import EtrConfig
from etr_ros.tokens import Locals


class RRT(nn.Module):
    """Reads the strongest `config.max_tokens` locals of each picture; `config.blocks` counts its layers."""

    gate = None  # none of its own; see `etr_ros.train.batches.batch_loss`

    def __init__(self, config: EtrConfig) -> None:
        super().__init__()
        self.config = config
        self.local = nn.Linear(config.local_dim, config.width)
        self.globals = nn.Linear(config.global_dim, config.width)
        self.position = nn.Linear(2, config.width)
        self.segment = nn.Embedding(4, config.width)  # locals and global of a, locals and global of b
        self.scale = nn.Embedding(config.scales, config.width)
        self.start = nn.Parameter(torch.zeros(1, 1, config.width))
        layer = nn.TransformerEncoderLayer(config.width, config.heads, config.ffn_width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, config.blocks, enable_nested_tensor=False)
        self.head = nn.Linear(config.width, 1)

    def forward(self, a: Locals, b: Locals) -> Tensor:
        """Logits (B,) that `a` and `b` (B pictures each) show the same place."""
        tokens_a, mask_a = self._embed(a, 0)
        tokens_b, mask_b = self._embed(b, 2)
        start = self.start.expand(len(tokens_a), -1, -1)
        seen = torch.ones_like(mask_a[:, :1])
        hidden = torch.cat([~seen, ~mask_a, ~mask_b], dim=1)
        x = self.encoder(torch.cat([start, tokens_a, tokens_b], dim=1), src_key_padding_mask=hidden)
        return self.head(x[:, 0]).squeeze(1)

    def _embed(self, x: Locals, segment: int) -> tuple[Tensor, Tensor]:
        kept = slice(0, self.config.max_tokens)
        scales = self.scale(x.scales[:, kept].long())
        where = self.position(x.xy[:, kept]) + self.segment.weight[segment]
        tokens = self.local(x.descriptors[:, kept]) + where + scales
        first = self.globals(x.global_descriptor)[:, None] + self.segment.weight[segment + 1]
        mask = torch.cat([torch.ones_like(x.mask[:, :1]), x.mask[:, kept]], dim=1)
        return torch.cat([first, tokens], dim=1), mask
