"""FC-CLIP's geometric ensemble in plain PyTorch: probabilities and powers, no logarithms.

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
    """Settings of the ensemble.

    Attributes:
        seen: whether each class was seen in training.
        alpha, beta: weight of CLIP for seen and for unseen classes.
        valid_masks: ignore CLIP where a mask is empty.
    """

    seen: Sequence[bool]
    alpha: float = 0.4
    beta: float = 0.8
    valid_masks: bool = False


def pooled_embedding(
    visual_head: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Mask embedding with a ConvNeXt: the visual head on the pooled feature, as a 1x1 map."""

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
    """Class logits (b, q, k + 1) of the trained classifier and zero-shot CLIP together.

    Args:
        class_logits: logits of the trained classifier, (b, q, k + 1).
        mask_logits: mask logits at stride 4, (b, q, h, w).
        res5: last feature of the CLIP encoder, (b, c, h5, w5).
        embed: (res5, mask logits at its size) -> mask embeddings (b, q, v).
        rows: class matrix (r, v).
        counts: number of rows of each class.
        logit_scale: CLIP's logarithmic scale, ().
        settings: weights of the two classifiers.
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
