"""The PyTorch SAMs of the refine stage: their common interface, and its backends.

    segment_anything    ViT-B, L, H, MobileSAM and LiteMedSAM from their authors' files
    transformers        SamModel and Sam2Model from a folder or the Hugging Face hub

This module imports neither torch nor a backend's library; `load` does.
"""

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float16, Int, UInt8

from clouds_jax import provenance

if TYPE_CHECKING:
    import torch

# backend -> module with `identify(settings)` and `load(settings)`
BACKENDS = {
    "segment_anything": "porting.stages.refine.sam_segment_anything",
    "transformers": "porting.stages.refine.sam_transformers",
}
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class SamSettings:
    """Model and settings of a SAM.

    Attributes:
        backend: key of `BACKENDS`.
        sam: key of `SAMS` that the weights must be of; transformers also takes "sam2", and "" for
            any model.
        weights: for segment_anything a source that `porting.files.locate` accepts; for transformers
            a folder, or a name on the hub.
        revision: commit, tag or branch on the hub; "" for the newest.
        dtype: dtype of the image encoder's products on a GPU. On a CPU, and in the mask decoder,
            all is float32.
        train_mode: batch norm with the statistics of the one image, as in the released training
            loop, which left MobileSAM in train mode.
        chunk: prompts decoded at once, which bounds the memory.
    """

    backend: str
    sam: str
    weights: str
    revision: str = ""
    dtype: str = "float32"
    train_mode: bool = False
    chunk: int = 16

    def __post_init__(self):
        if self.backend not in BACKENDS:
            raise ValueError(f"backend is {self.backend!r}; allowed are: {', '.join(BACKENDS)}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; allowed are: {', '.join(DTYPES)}.")
        if self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}; at least 1 prompt is decoded at once.")


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The embedding of an image.

    Attributes:
        features: (1, d, g, g), float32, on the model's device; for SAM 2 after finer maps.
        size: (h, w) of the image.
    """

    features: "tuple[torch.Tensor, ...]"
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Masks:
    """The masks of n prompts.

    Attributes:
        masks: best mask of each prompt, at image size.
        iou: predicted IoU of the three proposed masks.
        chosen: index of the best of the three.
    """

    masks: Bool[np.ndarray, "n h w"]
    iou: Float[np.ndarray, "n 3"]
    chosen: Int[np.ndarray, " n"]


class Sam(Protocol):
    """A loaded model."""

    def embed(self, image: UInt8[np.ndarray, "h w 3"]) -> Embedded:
        """Runs the image encoder on an RGB image."""
        ...

    def stored(self, values: Float16[np.ndarray, "g g d"], size: tuple[int, int]) -> Embedded:
        """A stored embedding (`clouds_jax.data.embeddings`) of an image of `size` (h, w).

        Raises:
            ValueError: it does not fit this model's decoder.
        """
        ...

    def masks(self, embedded: Embedded, points: Int[np.ndarray, "n p 2"]) -> Masks:
        """Prompts the decoder; the best mask for each prompt.

        Args:
            embedded: the image.
            points: prompts of p points inside an object, (x, y) in pixels of the image.
        """
        ...


def load(settings: SamSettings) -> Sam:
    """Loads a SAM, on the GPU if there is one.

    Raises:
        ValueError: the weights are not of the model that the settings name.
    """
    return importlib.import_module(BACKENDS[settings.backend]).load(settings)


def identify(settings: SamSettings) -> dict[str, Any]:
    """All that the masks depend on, as plain JSON, without loading the model.

    Downloads remote weights, since their hash is part of it.
    """
    weights = importlib.import_module(BACKENDS[settings.backend]).identify(settings)
    return {
        "backend": settings.backend,
        "sam": settings.sam,
        "revision": settings.revision,
        "dtype": settings.dtype,
        "train_mode": settings.train_mode,
        "versions": provenance.versions(["torch", settings.backend]),
        **weights,
    }
