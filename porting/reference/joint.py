"""The joint phase in plain PyTorch, for parity and as what speed is compared with.

Teacher, pseudo-labels, refinement with SAM on the host, thirty losses, clipping, AdamW: one call
after another, as CLOUDS' training forward does them. All random numbers are arguments.

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

from porting.reference import criterion

_PRESETS = ("release", "paper", "fixed")
_IGNORE = 255


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of the joint phase.

    Attributes:
        classes: k.
        preset: "release", "paper" or "fixed".
        min_area: components of at most so many pixels are left out.
        refine: False takes the teacher's labels as they are.
        decay, every: of the teacher's average.
        uncertain: points of a mask that are chosen where it is uncertain.
        lr, weight_decay, clip: of AdamW and of the gradient's norm.
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
        encode: RGB images 0..255, (b, h, w, 3) -> features res2..res5, NCHW.
        head: features -> class logits (o, b, q, k+1), mask logits (o, b, q, h4, w4).
        sam: a model of segment_anything; only its prompts and masks are asked.
        settings: see there.

    Attributes:
        teacher: average of the head.
        steps: done.
        labels: of the last step's generated images, before and after the refinement.
    """

    def __init__(
        self, encode: Callable[[np.ndarray], list[torch.Tensor]], head: nn.Module, sam: Any,
        settings: Settings,
    ):  # fmt: skip
        self.head, self.teacher = head, copy.deepcopy(head).requires_grad_(False)
        self.steps = 0
        self.labels: tuple[np.ndarray, np.ndarray] | None = None
        self._encode, self._sam, self._set = encode, sam, settings
        self._device = next(head.parameters()).device
        self._optimizer = adamw(head, settings.lr, settings.weight_decay)

    def step(
        self, image: np.ndarray, label: np.ndarray, new: np.ndarray, clean: np.ndarray,
        embedding: Sequence[torch.Tensor], bits: np.ndarray,
        points: Callable[[list[criterion.Target]], list[list[criterion.Points]]],
    ) -> dict[str, float]:  # fmt: skip
        """One update; returns the loss terms and their sum, "loss".

        Args:
            image: labelled images (b, h, w, 3).
            label: theirs, (b, h, w).
            new: generated images as the student sees them (g, h, w, 3).
            clean: the same as the teacher and SAM see them.
            embedding: of SAM, (1, d, n, n) each.
            bits: random numbers (g, n, p), a row per component.
            points: targets -> points of every output and example.
        """
        self._follow()
        with torch.no_grad():
            features = self._encode(np.concatenate([image, new]))
            seen = self._encode(clean)
            raw = teach(self.teacher, seen, clean.shape[1:3])
        found = [self._refine(*one) for one in zip(raw, embedding, bits, strict=True)]
        self.labels = raw, np.stack([label for label, _ in found])
        here = torch.from_numpy(label).to(self._device)
        targets = criterion.targets_of(here, self._set.classes)
        targets += [self._target(*one) for one in found]
        classes, masks = self.head(features)
        loss, terms = criterion.criterion(
            list(classes), list(masks), targets, points(targets), uncertain=self._set.uncertain
        )
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.head.parameters(), self._set.clip)
        self._optimizer.step()
        self.steps += 1
        return {name: float(term.detach()) for name, term in (terms | {"loss": loss}).items()}

    @torch.no_grad()
    def _follow(self) -> None:
        if self.steps % self._set.every == 0:
            for old, now in zip(self.teacher.parameters(), self.head.parameters(), strict=True):
                old.lerp_(now, 1 - self._set.decay)

    def _refine(
        self, label: np.ndarray, embedding: torch.Tensor, bits: np.ndarray
    ) -> tuple[np.ndarray, list[int]]:
        """The refined label of one image, and the classes that are targets."""
        everything = np.unique(label).tolist()
        if not self._set.refine:
            return label, everything
        prompts = components(label, self._set.min_area, bits)
        if not prompts:
            return label, everything
        values = np.array([value for value, _ in prompts])
        masks = ask(self._sam, embedding, np.stack([p for _, p in prompts]), label.shape)
        of_class = {value: masks[values == value].any(0) for value in values.tolist()}
        # masks that claim a pixel, or classes that do
        claims = masks if self._set.preset == "release" else np.stack([*of_class.values()])
        refined = np.full(label.shape, _IGNORE, np.uint8)
        for value, mask in of_class.items():
            refined[mask & (claims.sum(0) == 1)] = value
        targets = sorted(of_class)
        if self._set.preset == "fixed":
            targets = [value for value in targets if (refined == value).any()]
        return refined, targets

    def _target(self, label: np.ndarray, classes: list[int]) -> criterion.Target:
        values = torch.from_numpy(label).to(self._device)
        masks = [values == value for value in classes]
        ignored = None if self._set.preset == "release" else values == _IGNORE
        none = torch.zeros((0, *label.shape), device=self._device)
        ids = torch.tensor(classes, dtype=torch.long, device=self._device)
        return criterion.Target(ids, torch.stack(masks) if masks else none, ignored)


def teach(head: nn.Module, features: list[torch.Tensor], size: tuple[int, ...]) -> np.ndarray:
    """The class of every pixel."""
    classes, masks = head(features)
    logits = F.interpolate(masks[-1], size, mode="bilinear", align_corners=False)
    votes = classes[-1].softmax(-1)[..., :-1]
    scores = torch.einsum("bqk,bqhw->bkhw", votes, logits.sigmoid())
    return scores.argmax(1).byte().cpu().numpy()


def areas(label: np.ndarray) -> list[int]:
    """Pixels of all components, largest first."""
    found = []
    for value in np.unique(label).tolist():
        regions: Any = scipy.ndimage.label(label == value)
        found += np.bincount(regions[0].reshape(-1))[1:].tolist()
    return sorted(found, reverse=True)


def components(
    label: np.ndarray, min_area: int, bits: np.ndarray
) -> list[tuple[int, np.ndarray]]:  # fmt: skip
    """Class and prompting points (x, y) of every large component, class by class."""
    found = []
    for value in np.unique(label).tolist():
        found_here: Any = scipy.ndimage.label(label == value)
        regions = found_here[0]
        for region in range(1, regions.max() + 1):
            ys, xs = np.nonzero(regions == region)
            if len(ys) <= min_area:
                continue
            left = list(zip(xs.tolist(), ys.tolist(), strict=True))
            drawn = [left.pop(int(number) % len(left)) for number in bits[len(found)]]
            found.append((value, np.array(drawn)))
    return found


@torch.no_grad()
def ask(
    sam: Any, embedding: torch.Tensor, points: np.ndarray, size: tuple[int, ...]
) -> np.ndarray:  # fmt: skip
    """SAM's best of three masks (n, h, w) for points (n, p, 2), as its predictor has it."""
    from segment_anything.utils.transforms import ResizeLongestSide

    resize = ResizeLongestSide(sam.image_encoder.img_size)
    inside = resize.get_preprocess_shape(size[0], size[1], resize.target_length)
    scaled = torch.from_numpy(resize.apply_coords(points, size)).to(embedding.device).float()
    sparse, dense = sam.prompt_encoder(
        points=(scaled, torch.ones_like(scaled[..., 0])), boxes=None, masks=None
    )
    low, iou = sam.mask_decoder(
        image_embeddings=embedding, image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=True,
    )  # fmt: skip
    masks = sam.postprocess_masks(low, inside, size) > 0
    best = iou.argmax(1)[:, None, None, None].expand(-1, 1, *size)
    return masks.gather(1, best)[:, 0].cpu().numpy()


def adamw(head: nn.Module, lr: float, decay: float) -> torch.optim.AdamW:
    """One group per tensor, no decay for norms and embeddings, as the original's train_net."""
    norms = (nn.GroupNorm, nn.LayerNorm, nn.Embedding)
    groups = [
        {"params": [value], "weight_decay": 0.0 if isinstance(module, norms) else decay}
        for module in head.modules()
        for value in module.parameters(recurse=False)
    ]
    return torch.optim.AdamW(groups, lr=lr)
