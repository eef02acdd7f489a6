"""Segment Anything for one image at a time: points and boxes to masks."""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from clouds_jax import images, runtime
from clouds_jax.model.model import Picture
from clouds_jax.nn.sam import registry
from clouds_jax.nn.sam.decoder import PromptedMasks, input_size, prompt_scale
from clouds_jax.nn.sam.registry import SamSpec
from clouds_jax.ops import resize
from clouds_jax.weights import fill_module, load_weights


@dataclasses.dataclass(frozen=True)
class SamMasks:
    """Masks of n prompts on one image, three proposals each.

    Attributes:
        masks: bool [n, 3, h, w], at the image's size.
        iou: float32 [n, 3], SAM's predicted IoU of each mask.
    """

    masks: Bool[np.ndarray, "n m h w"]
    iou: Float[np.ndarray, "n m"]

    @property
    def best(self) -> Bool[np.ndarray, "n h w"]:
        """The proposal of each prompt with the highest predicted IoU."""
        return self.masks[np.arange(len(self.masks)), self.iou.argmax(-1)]


class Sam:
    """A SAM with its weights.

    Args:
        module: prompt encoder, mask decoder and image encoder.
        spec: size and preprocessing of this SAM.
    """

    def __init__(self, module: PromptedMasks, spec: SamSpec):
        self.module, self.spec = module, spec
        self._graphdef, self._state = nnx.split(module)
        self._embedded: tuple[bytes, Array] | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike, name: str = "") -> "Sam":
        """Reads converted weights.

        Args:
            folder: output folder of `python -m porting convert`.
            name: key of `nn.sam.registry.SAMS`; "": the name that the folder states.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: it holds no SAM, or another one than `name`.
        """
        runtime.use_compile_cache()
        tree, provenance = load_weights(folder, ("sam",))
        name = name or (provenance.get("target") or {}).get("sam") or ""
        if not tree or not name:
            raise ValueError(
                f"{folder} holds no whole SAM; convert one with `python -m porting convert FAMILY"
                " FILE --output FOLDER`, or name what it is:"
                f" {', '.join(registry.SAMS)}."
            )
        spec = registry.get_sam(name)
        hint = f"Are these the weights of {name}?"
        filled = fill_module(spec.build, tree["sam"], where=str(folder), hint=hint)
        return cls(nnx.merge(*filled), spec)

    def predict(
        self,
        image: Picture,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
    ) -> SamMasks:
        """Masks of prompts; the same image is embedded once.

        Args:
            image: path, PIL image or uint8 array.
            points: (x, y) in pixels of the image: [p, 2] for one prompt, [n, p, 2] for n.
            labels: 1 inside the object, 0 outside it, -1 no point: [p] or [n, p]; None: all 1.
            boxes: (x0, y0, x1, y1) in pixels: [4] for one prompt, [n, 4] for n.

        Raises:
            ValueError: there is no prompt, or shapes do not fit each other.
        """
        rgb = images.as_rgb(image)
        places, kinds, has_boxes = _prompts(points, labels, boxes)
        size = rgb.shape[0], rgb.shape[1]
        scale = np.asarray(prompt_scale(size, self.spec.image), np.float32)
        masks, iou = _predict(
            self._graphdef, self._state, self._embedding(rgb), jnp.asarray(places * scale),
            jnp.asarray(kinds), size, has_boxes,
        )  # fmt: skip
        return SamMasks(np.asarray(masks), np.asarray(iou))

    def _embedding(self, rgb: np.ndarray) -> Array:
        key = rgb.tobytes() + repr(rgb.shape).encode()
        if self._embedded is None or self._embedded[0] != key:
            self._embedded = key, registry.embed(self.module, rgb[None], self.spec)[0]
        return self._embedded[1]


def _prompts(
    points: Any, labels: Any, boxes: Any
) -> tuple[Float[np.ndarray, "n p 2"], Int[np.ndarray, "n p"], bool]:
    """Points with labels; the corners of a box are its last two points."""
    if points is None and boxes is None:
        raise ValueError("predict: give points, boxes or both.")
    places: list[np.ndarray] = []
    kinds: list[np.ndarray] = []
    if points is not None:
        at = np.asarray(points, np.float32)
        at = at[None] if at.ndim == 2 else at
        if at.ndim != 3 or at.shape[-1] != 2:
            raise ValueError(f"predict: points are {at.shape}; allowed are [p, 2] and [n, p, 2].")
        places.append(at)
        kinds.append(_point_labels(labels, at.shape))
    if boxes is not None:
        corners = np.asarray(boxes, np.float32)
        if corners.ndim not in (1, 2) or corners.shape[-1] != 4:
            raise ValueError(f"predict: boxes are {corners.shape}; allowed are [4] and [n, 4].")
        corners = corners.reshape(-1, 2, 2)
        places.append(corners)
        kinds.append(np.tile(np.asarray([2, 3], np.int32), (len(corners), 1)))
    if len({len(at) for at in places}) > 1:
        raise ValueError(
            f"predict: {len(places[0])} prompts of points and {len(places[1])} boxes; there must be"
            " as many of both."
        )
    return np.concatenate(places, 1), np.concatenate(kinds, 1), boxes is not None


def _point_labels(labels: Any, points: tuple[int, ...]) -> Int[np.ndarray, "n p"]:
    """Labels of points of the shape `points`, [n, p, 2]; all 1 where `labels` is None."""
    if labels is None:
        return np.ones(points[:2], np.int32)
    kinds = np.asarray(labels, np.int32).reshape(-1, points[1])
    if kinds.shape != points[:2] or not np.isin(kinds, (-1, 0, 1)).all():
        raise ValueError(
            f"predict: labels are {np.shape(labels)} for points {points}; there must be one"
            " for each point: 1 inside, 0 outside, -1 none."
        )
    return kinds


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def _predict(graphdef, state, embedding, points, kinds, size, boxes):
    sam = nnx.merge(graphdef, state)
    logits, iou = sam(embedding, points, kinds, boxes=boxes)
    inside = input_size(size, sam.image)
    whole = resize.resize_bilinear(logits, (sam.image, sam.image))
    whole = resize.resize_bilinear(whole[:, : inside[0], : inside[1]], size)
    return jnp.moveaxis(whole > 0, -1, 1), iou
