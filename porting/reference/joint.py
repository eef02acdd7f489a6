"""The joint phase in plain PyTorch, as reference for parity and as baseline for speed.

Teacher, pseudo-labels, refinement with SAM on the host, thirty losses, clipping, AdamW: one after
the other, as in the training forward of CLOUDS. All random numbers are arguments.

Source: CLOUDS (CVPR 2024), spec 3.7 and 4.2 to 4.6 of its released code.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import nn

from clouds_jax.constants import IGNORE
from porting.reference import criterion

_PRESETS = ("release", "paper", "fixed")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the joint phase.

    Attributes:
        classes: number of classes k.
        preset: rules of the refinement: "release", "paper" or "fixed".
        min_area: largest area, in pixels, of components that are skipped.
        refine: whether SAM refines the teacher's labels.
        decay, every: decay of the EMA teacher, and number of steps between its updates.
        uncertain: number of uncertain points per mask.
        lr, weight_decay, clip: settings of AdamW, and the bound on the gradient's norm.
    """

    classes: int
    preset: str = "release"
    min_area: int = 5000
    refine: bool = True
    decay: float = 0.999
    every: int = 100
    uncertain: int = 9408
    lr: float = 1e-5
    weight_decay: float = 0.05
    clip: float = 0.01

    def __post_init__(self):
        if self.preset not in _PRESETS:
            raise ValueError(f"preset is {self.preset!r}; allowed are: {', '.join(_PRESETS)}.")


class Joint:
    """A run of the joint phase.

    Args:
        encode: RGB images (b, h, w, 3), 0..255 -> features res2..res5, NCHW.
        head: features -> class logits (o, b, q, k+1) and mask logits (o, b, q, h4, w4).
        sam: a model of segment_anything; only its prompt encoder and mask decoder are used.
        settings: presets, teacher and optimizer.

    Attributes:
        teacher: exponential moving average of the head.
        steps: number of steps taken.
        labels: pseudo-labels of the last step's generated images, before and after refinement.
    """

    def __init__(
        self,
        encode: Callable[[np.ndarray], list[torch.Tensor]],
        head: nn.Module,
        sam: Any,
        settings: Settings,
    ):
        self.head, self.teacher = head, copy.deepcopy(head).requires_grad_(False)
        self.steps = 0
        self.labels: tuple[np.ndarray, np.ndarray] | None = None
        self._encode, self._sam, self._settings = encode, sam, settings
        self._device = next(head.parameters()).device
        self._optimizer = adamw(head, settings.lr, settings.weight_decay)

    def step(
        self,
        image: np.ndarray,
        label: np.ndarray,
        new: np.ndarray,
        clean: np.ndarray,
        embedding: Sequence[torch.Tensor],
        bits: np.ndarray,
        points: Callable[[list[criterion.Target]], list[list[criterion.Points]]],
    ) -> dict[str, float]:
        """Takes one step; returns the loss terms and their sum, "loss".

        Args:
            image: labelled images, (b, h, w, 3).
            label: their labels, (b, h, w).
            new: augmented generated images for the student, (g, h, w, 3).
            clean: the same images without augmentation, for the teacher and SAM.
            embedding: SAM's embedding of each generated image, (1, d, n, n).
            bits: random integers (g, n, p): p per component, to choose its points.
            points: targets -> sampling points of every decoder output and image.
        """
        self._update_teacher()
        with torch.no_grad():
            features = self._encode(np.concatenate([image, new]))
            seen = self._encode(clean)
            raw = class_map(self.teacher, seen, clean.shape[1:3])
        refined = [self._refine(*args) for args in zip(raw, embedding, bits, strict=True)]
        self.labels = raw, np.stack([label for label, _ in refined])
        labels = torch.from_numpy(label).to(self._device)
        targets = criterion.targets_of(labels, self._settings.classes)
        targets += [self._target(*args) for args in refined]
        classes, masks = self.head(features)
        loss, terms = criterion.criterion(
            list(classes), list(masks), targets, points(targets), uncertain=self._settings.uncertain
        )
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.head.parameters(), self._settings.clip)
        self._optimizer.step()
        self.steps += 1
        return {name: float(term.detach()) for name, term in (terms | {"loss": loss}).items()}

    @torch.no_grad()
    def _update_teacher(self) -> None:
        if self.steps % self._settings.every == 0:
            for old, now in zip(self.teacher.parameters(), self.head.parameters(), strict=True):
                old.lerp_(now, 1 - self._settings.decay)

    def _refine(
        self, label: np.ndarray, embedding: torch.Tensor, bits: np.ndarray
    ) -> tuple[np.ndarray, list[int]]:
        """The refined label of one image, and the classes that are targets."""
        present = np.unique(label).tolist()
        if not self._settings.refine:
            return label, present
        prompts = components(label, self._settings.min_area, bits)
        if not prompts:
            return label, present
        values = np.array([value for value, _ in prompts])
        points = np.stack([points for _, points in prompts])
        masks = prompt_masks(self._sam, embedding, points, label.shape)
        of_class = {value: masks[values == value].any(0) for value in values.tolist()}
        # the release drops overlaps of masks, the other presets overlaps of classes
        claims = masks if self._settings.preset == "release" else np.stack([*of_class.values()])
        refined = np.full(label.shape, IGNORE, np.uint8)
        for value, mask in of_class.items():
            refined[mask & (claims.sum(0) == 1)] = value
        targets = sorted(of_class)
        if self._settings.preset == "fixed":
            targets = [value for value in targets if (refined == value).any()]
        return refined, targets

    def _target(self, label: np.ndarray, classes: list[int]) -> criterion.Target:
        values = torch.from_numpy(label).to(self._device)
        masks = [values == value for value in classes]
        ignored = None if self._settings.preset == "release" else values == IGNORE
        none = torch.zeros((0, *label.shape), device=self._device)
        ids = torch.tensor(classes, dtype=torch.long, device=self._device)
        return criterion.Target(ids, torch.stack(masks) if masks else none, ignored)


def class_map(head: nn.Module, features: list[torch.Tensor], size: tuple[int, ...]) -> np.ndarray:
    """Predicted class (b, h, w) of every pixel, at `size` (h, w)."""
    classes, masks = head(features)
    logits = F.interpolate(masks[-1], size, mode="bilinear", align_corners=False)
    votes = classes[-1].softmax(-1)[..., :-1]
    scores = torch.einsum("bqk,bqhw->bkhw", votes, logits.sigmoid())
    return scores.argmax(1).byte().cpu().numpy()


def component_areas(label: np.ndarray) -> list[int]:
    """Areas in pixels of the connected components of a label map (h, w), largest first."""
    areas = []
    for value in np.unique(label).tolist():
        regions, _ = _regions(label == value)
        areas += np.bincount(regions.reshape(-1))[1:].tolist()
    return sorted(areas, reverse=True)


def components(label: np.ndarray, min_area: int, bits: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Class and points (p, 2), (x, y) in pixels, of every large component, class by class.

    Args:
        label: label map (h, w).
        min_area: largest area, in pixels, of components that are skipped.
        bits: random integers (n, p), a row per component.
    """
    prompts = []
    for value in np.unique(label).tolist():
        regions, count = _regions(label == value)
        for region in range(1, count + 1):
            ys, xs = np.nonzero(regions == region)
            if len(ys) <= min_area:
                continue
            pixels = list(zip(xs.tolist(), ys.tolist(), strict=True))
            points = [pixels.pop(int(number) % len(pixels)) for number in bits[len(prompts)]]
            prompts.append((value, np.array(points)))
    return prompts


def _regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected components of a mask (h, w), numbered from 1, and their count."""
    labelled: Any = scipy.ndimage.label(mask)  # its type depends on arguments not used here
    return labelled


@torch.no_grad()
def prompt_masks(
    sam: Any, embedding: torch.Tensor, points: np.ndarray, size: tuple[int, ...]
) -> np.ndarray:
    """Prompts SAM with points; the best of its three masks for each prompt, as in SamPredictor.

    Args:
        sam: a model of segment_anything.
        embedding: image embedding (1, d, n, n).
        points: points inside the object, (n, p, 2), (x, y) in pixels of the image.
        size: (h, w) of the image.

    Returns:
        Boolean masks (n, h, w).
    """
    from segment_anything.utils.transforms import ResizeLongestSide

    resize = ResizeLongestSide(sam.image_encoder.img_size)
    inside = resize.get_preprocess_shape(size[0], size[1], resize.target_length)
    scaled = torch.from_numpy(resize.apply_coords(points, size)).to(embedding.device).float()
    sparse, dense = sam.prompt_encoder(
        points=(scaled, torch.ones_like(scaled[..., 0])), boxes=None, masks=None
    )
    low, iou = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    masks = sam.postprocess_masks(low, inside, size) > 0
    best = iou.argmax(1)[:, None, None, None].expand(-1, 1, *size)
    return masks.gather(1, best)[:, 0].cpu().numpy()


def adamw(head: nn.Module, lr: float, decay: float) -> torch.optim.AdamW:
    """AdamW without decay for norms and embeddings, one group per tensor, as in train_net.py."""
    norms = (nn.GroupNorm, nn.LayerNorm, nn.Embedding)
    groups = [
        {"params": [value], "weight_decay": 0.0 if isinstance(module, norms) else decay}
        for module in head.modules()
        for value in module.parameters(recurse=False)
    ]
    return torch.optim.AdamW(groups, lr=lr)
