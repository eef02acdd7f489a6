"""The prediction of one image: class map, scores, IoU, overlay."""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image

from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import LabelSpace
from clouds_jax.visual import labels

Rgb = UInt8[np.ndarray, "h w 3"]
Label = UInt8[np.ndarray, "h w"]
Scores = Float16[np.ndarray, "h w k"]


class Prediction:
    """Class map of one image, at the image's own size.

    Attributes:
        image: uint8 RGB [h, w, 3], as the model saw it.
        label: uint8 [h, w], class ids.
        space: names and colours of the classes.
    """

    def __init__(
        self, image: Rgb, label: Label, space: LabelSpace, compute_scores: Callable[[], Scores]
    ):
        self.image, self.label, self.space = image, label, space
        self._compute_scores = compute_scores

    def __repr__(self) -> str:
        h, w = self.label.shape
        return f"Prediction({h}x{w}, {', '.join(self.shares)})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes, by id."""
        return self.space.names

    @property
    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class that is seen, largest first."""
        counts = np.bincount(self.label.reshape(-1), minlength=len(self.space))
        order = np.argsort(-counts, kind="stable")
        total = self.label.size
        return {self.space.names[i]: float(counts[i] / total) for i in order if counts[i]}

    @functools.cached_property
    def scores(self) -> Scores:
        """Class scores, float16 [h, w, k]; computed when they are first read."""
        return self._compute_scores()

    def iou(self, label: Label) -> dict[str, float]:
        """IoU with a label map, by class, and their "mean".

        Args:
            label: class ids of the same space and size; 255 is not counted.

        Returns:
            Classes that neither the label nor the prediction shows are left out.

        Raises:
            ValueError: the label has another size or ids that are no class.
        """
        label = np.asarray(label)
        if label.shape != self.label.shape:
            raise ValueError(
                f"iou: the label is {label.shape}, the prediction {self.label.shape} (h, w)."
            )
        known = label != IGNORE
        if label[known].size and int(label[known].max()) >= len(self.space):
            raise ValueError(
                f"iou: the label has id {label[known].max()}; {self.space.name} has"
                f" 0..{len(self.space) - 1} and {IGNORE}."
            )
        out = {}
        for i, name in enumerate(self.space.names):
            predicted, labelled = (self.label == i) & known, label == i
            union = (predicted | labelled).sum()
            if union:
                out[name] = float((predicted & labelled).sum() / union)
        return out | {"mean": float(np.mean(list(out.values()))) if out else float("nan")}

    def overlay(self, alpha: float = 0.55, *, legend: bool = True) -> Image.Image:
        """The classes' colours over the image.

        Args:
            alpha: weight of the colours, 0..1.
            legend: add the names of the classes that are seen below.
        """
        picture = labels.overlay(self.image, self.label, self.space, alpha)
        if legend:
            picture = labels.with_legend(picture, self.label, self.space)
        return Image.fromarray(picture)
