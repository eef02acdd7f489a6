"""The geometric ensemble in plain PyTorch, for parity: probabilities and powers, no logarithms.

Layouts are PyTorch's: class logits (b, q, k + 1), mask logits (b, q, h, w), res5 (b, c, h, w).

Source: FC-CLIP and CLOUDS, spec 1.10.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from porting.reference.class_heads import mask_pool, text_logits


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of the ensemble.

    Attributes:
        seen: whether each class was trained.
        alpha, beta: CLIP's share for the classes that were, and for the others.
        valid_masks: leave CLIP out where a mask is empty.
    """

    seen: Sequence[bool]
    alpha: float = 0.4
    beta: float = 0.8
    valid_masks: bool = False


def pooled_embedding(
    visual_head: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """ConvNeXt's embedding of masks: the head on the pooled feature, as a map of one pixel."""

    def embed(res5: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        pooled = mask_pool(res5, masks)
        b, q, c = pooled.shape
        return visual_head(pooled.reshape(b * q, c, 1, 1)).reshape(b, q, -1)

    return embed


def ensemble(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    res5: torch.Tensor,
    embed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    rows: torch.Tensor,
    counts: Sequence[int],
    logit_scale: torch.Tensor,
    settings: Settings,
) -> torch.Tensor:
    """The new class logits (b, q, k + 1).

    Args:
        class_logits: of the trained classifier.
        mask_logits: at stride 4.
        res5: of the CLIP encoder.
        embed: (res5, mask logits at its size) -> embeddings (b, q, v).
        rows: class matrix (r, v).
        counts: rows of each class.
        logit_scale: CLIP's.
        settings: numbers.
    """
    masks = F.interpolate(mask_logits, res5.shape[-2:], mode="bilinear", align_corners=False)
    clip = text_logits(embed(res5, masks), rows, counts, logit_scale).softmax(-1)
    trained = class_logits[..., :-1].softmax(-1)
    share = torch.where(
        torch.tensor(list(settings.seen)),
        torch.tensor(settings.alpha, dtype=clip.dtype),
        torch.tensor(settings.beta, dtype=clip.dtype),
    ).expand_as(clip)
    if settings.valid_masks:
        share = share * (masks > 0).any(-1).any(-1)[..., None]
    votes = (trained ** (1 - share) * clip**share).log().softmax(-1)
    void = class_logits.softmax(-1)[..., -1:]
    return torch.cat([votes * (1 - void), void], -1).add(1e-8).log()
