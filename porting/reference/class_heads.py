"""The text and the pooled class head in plain PyTorch, under the names of the original files.

Layouts are PyTorch's: queries (b, q, d), mask features (b, d, h, w), mask logits (b, q, h, w).

Source: CLOUDS' decoders and FC-CLIP, spec 1.6 and 1.9.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

_EPS = 1e-8  # added to the area of a mask
_MAX_SCALE = 100.0


def mask_pool(features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean (b, q, d) of features (b, d, h, w) where mask logits (b, q, h, w) are positive."""
    with torch.no_grad():
        inside = (masks > 0).to(features.dtype)
        share = inside / (inside.sum((-1, -2), keepdim=True) + _EPS)
    return torch.einsum("bdhw,bqhw->bqd", features, share)


def text_logits(
    x: torch.Tensor, rows: torch.Tensor, counts: Sequence[int], logit_scale: torch.Tensor
) -> torch.Tensor:
    """Logits (b, q, k): scaled cosines of x (b, q, v) with rows (r, v), the maximum per class."""
    logits = logit_scale.exp().clamp(max=_MAX_SCALE) * F.normalize(x, dim=-1) @ rows.T
    return torch.stack([part.max(-1).values for part in logits.split(list(counts), -1)], -1)


class Layers(nn.Module):
    """An MLP: linear layers with ReLU between them."""

    def __init__(self, *sizes: int):
        super().__init__()
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x) if i == 0 else layer(x.relu())
        return x


class PooledPredictor(nn.Module):
    """A linear classifier of the query plus the features pooled under its mask."""

    def __init__(self, dim: int, classes: int):
        super().__init__()
        self._mask_pooling_proj = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.class_embed = nn.Linear(dim, classes + 1)

    def forward(
        self, queries: torch.Tensor, features: torch.Tensor, masks: torch.Tensor
    ) -> torch.Tensor:
        return self.class_embed(queries + self._mask_pooling_proj(mask_pool(features, masks)))


class TextPredictor(nn.Module):
    """Cosine classifier with the class matrix and a learned void embedding.

    Args:
        dim: width of the queries.
        matrix: unit vectors (r, v), sorted by class; not part of the state dict.
        counts: number of rows of each class.
    """

    def __init__(self, dim: int, matrix: torch.Tensor, counts: Sequence[int]):
        super().__init__()
        width = matrix.shape[1]
        self._mask_pooling_proj = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.class_embed = Layers(dim, dim, dim, width)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.void_embedding = nn.Embedding(1, width)
        self.register_buffer("matrix", matrix, persistent=False)
        self.counts = (*counts, 1)

    def forward(
        self, queries: torch.Tensor, features: torch.Tensor, masks: torch.Tensor
    ) -> torch.Tensor:
        pooled = self._mask_pooling_proj(mask_pool(features, masks))
        void = F.normalize(self.void_embedding.weight, dim=-1)
        rows = torch.cat([self.get_buffer("matrix"), void])
        x = self.class_embed(queries + pooled)
        return text_logits(x, rows, self.counts, self.logit_scale)
