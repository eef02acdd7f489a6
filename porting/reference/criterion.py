"""The Mask2Former criterion in plain PyTorch, for parity: dense masks, matching by SciPy.

All sampling points are arguments, so that both sides use the same ones. Layouts are PyTorch's:
mask logits (b, q, h, w). Points are (x, y) in [0, 1].

Source: CLOUDS `criterion.py` and `matcher.py`; detectron2 `point_features.py`.
"""

import dataclasses

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment


@dataclasses.dataclass
class Target:
    """Target masks of one image.

    Attributes:
        classes: class of each mask, (m,).
        masks: binary masks, (m, H, W).
        ignored: pixels that the mask losses skip, (H, W), binary; None for none.
    """

    classes: torch.Tensor
    masks: torch.Tensor
    ignored: torch.Tensor | None = None

    def counted(self, points: torch.Tensor) -> torch.Tensor:
        """Weight (n, p) of points (n, p, 2) in mask losses: 1 where no ignored pixel is near."""
        if self.ignored is None:
            return points.new_ones(points.shape[:2])
        maps = self.ignored.to(points.dtype)[None].expand(len(points), -1, -1)
        return 1 - sample(maps, points)


@dataclasses.dataclass
class Points:
    """Sampling points of one image and decoder output, m masks as in the image's `Target`.

    Attributes:
        match: points (p, 2) of the matching costs, shared by all masks.
        candidates: points (m, c, 2) that the uncertain ones are chosen from.
        random: points (m, r, 2) that are used as they are.
    """

    match: torch.Tensor
    candidates: torch.Tensor
    random: torch.Tensor


def targets_of(labels: torch.Tensor, classes: int) -> list[Target]:
    """The target of each label map of (b, H, W): one mask per class present, in ascending order."""
    targets = []
    for label in labels:
        ids = [k for k in range(classes) if bool((label == k).any())]
        masks = [label == k for k in ids]
        empty = torch.zeros((0, *label.shape), device=labels.device)
        stacked = torch.stack(masks) if masks else empty
        classes_present = torch.tensor(ids, dtype=torch.long, device=labels.device)
        targets.append(Target(classes_present, stacked))
    return targets


def sample(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear samples (n, p) of maps (n, h, w) at points (n, p, 2)."""
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]


def pair_costs(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    target: Target,
    points: torch.Tensor,
    weights: tuple[float, float, float] = (2.0, 5.0, 5.0),
) -> torch.Tensor:
    """Matching cost (q, m) of one image from class_logits (q, k+1) and mask_logits (q, h, w)."""
    queries, count = mask_logits.shape[0], target.masks.shape[0]
    logits = sample(mask_logits, points[None].expand(queries, -1, -1))
    wanted = sample(target.masks.to(logits.dtype), points[None].expand(count, -1, -1))

    positive = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none")
    negative = F.binary_cross_entropy_with_logits(
        logits, torch.zeros_like(logits), reduction="none"
    )
    # near ignored pixels, only the share of a point that is known to be target or not counts
    counted = target.counted(points[None])
    mask = (positive @ wanted.T + negative @ (counted - wanted).T) / counted.sum().clamp(min=1)

    share = logits.sigmoid() * counted
    dice = 1 - (2 * share @ wanted.T + 1) / (share.sum(1)[:, None] + wanted.sum(1)[None] + 1)
    cls = -class_logits.softmax(-1)[:, target.classes]
    return weights[0] * cls + weights[1] * mask + weights[2] * dice


@torch.no_grad()
def match(class_logits, mask_logits, targets, points, weights=(2.0, 5.0, 5.0)):
    """Matches one decoder output: per image the index tensors (queries, masks) of the pairs."""
    pairs = []
    for logits, masks, target, where in zip(
        class_logits, mask_logits, targets, points, strict=True
    ):
        costs = pair_costs(logits, masks, target, where.match, weights)
        query, mask = linear_sum_assignment(costs.float().cpu().numpy())
        pairs.append(tuple(torch.as_tensor(index, device=costs.device) for index in (query, mask)))
    return pairs


def class_loss(class_logits, targets, pairs, no_object: float = 0.1) -> torch.Tensor:
    """Weighted cross-entropy over all queries, of class logits (b, q, k+1)."""
    background = class_logits.shape[-1] - 1
    device = class_logits.device
    wanted = torch.full(class_logits.shape[:2], background, device=device)
    for image, (target, (query, mask)) in enumerate(zip(targets, pairs, strict=True)):
        wanted[image, query] = target.classes[mask]
    weight = torch.ones(background + 1, dtype=class_logits.dtype, device=device)
    weight[background] = no_object
    return F.cross_entropy(class_logits.transpose(1, 2), wanted, weight)


def mask_losses(mask_logits, targets, pairs, points, uncertain: int):
    """Binary cross-entropy and dice loss, each summed over the matched masks."""
    maps = torch.cat([m[query] for m, (query, _) in zip(mask_logits, pairs, strict=True)])
    wanted = torch.cat([t.masks[mask] for t, (_, mask) in zip(targets, pairs, strict=True)])
    if not len(maps):
        return mask_logits.sum() * 0, mask_logits.sum() * 0
    candidates, random = (
        torch.cat([getattr(p, name)[mask] for p, (_, mask) in zip(points, pairs, strict=True)])
        for name in ("candidates", "random")
    )
    with torch.no_grad():
        certainty = sample(maps, candidates).abs()
        chosen = certainty.topk(uncertain, dim=1, largest=False).indices
        where = torch.gather(candidates, 1, chosen[..., None].expand(-1, -1, 2))
        where = torch.cat([where, random], dim=1)
        wanted = sample(wanted.to(maps.dtype), where)
        parts = where.split([len(mask) for _, mask in pairs])
        counted = torch.cat([t.counted(part) for t, part in zip(targets, parts, strict=True)])
    logits = sample(maps, where)
    ones = torch.ones_like(logits)
    positive = F.binary_cross_entropy_with_logits(logits, ones, reduction="none")
    negative = F.binary_cross_entropy_with_logits(logits, 0 * ones, reduction="none")
    cross = (positive * wanted + negative * (counted - wanted)).sum(1)
    mask = (cross / counted.sum(1).clamp(min=1)).sum()
    share = logits.sigmoid() * counted
    overlap = (share * wanted).sum(1)
    dice = (1 - (2 * overlap + 1) / (share.sum(1) + wanted.sum(1) + 1)).sum()
    return mask, dice


def criterion(
    class_logits: list[torch.Tensor],
    mask_logits: list[torch.Tensor],
    targets: list[Target],
    points: list[list[Points]],
    *,
    uncertain: int,
    weights: tuple[float, float, float] = (2.0, 5.0, 5.0),
    no_object: float = 0.1,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The total loss, and its weighted terms by the names of the original.

    Args:
        class_logits: (b, q, k+1) of each decoder output.
        mask_logits: (b, q, h, w) of each decoder output.
        targets: one per image.
        points: sampling points, points[output][image].
        uncertain: number of candidates that are used as points.
        weights: weights of class, mask and dice loss.
        no_object: class weight of unmatched queries.
    """
    masks = max(sum(len(t.classes) for t in targets), 1)
    terms = {}
    for output, (logits, maps) in enumerate(zip(class_logits, mask_logits, strict=True)):
        pairs = match(logits, maps, targets, points[output], weights)
        mask, dice = mask_losses(maps, targets, pairs, points[output], uncertain)
        suffix = "" if output == len(class_logits) - 1 else f"_{output}"
        terms["loss_ce" + suffix] = weights[0] * class_loss(logits, targets, pairs, no_object)
        terms["loss_mask" + suffix] = weights[1] * mask / masks
        terms["loss_dice" + suffix] = weights[2] * dice / masks
    return torch.stack(list(terms.values())).sum(), terms
