"""The PyTorch SAMs that the refine stage asks: one interface, and the backends that have it.

    segment_anything    ViT-B, L, H, MobileSAM and LiteMedSAM from their makers' files
    transformers        SamModel and Sam2Model from a folder or the Hugging Face hub

This module needs neither torch nor a backend's library; `load` imports them.
"""

import dataclasses
import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float16, Int, UInt8

if TYPE_CHECKING:
    import torch

# name -> module with `identify(settings)` and `load(settings)`
BACKENDS = {
    "segment_anything": "porting.stages.refine.sam_segment_anything",
    "transformers": "porting.stages.refine.sam_transformers",
}
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class SamSettings:
    """Which SAM, and how it runs.

    Attributes:
        backend: name in `BACKENDS`.
        sam: name in `clouds_jax.sam.SAMS`, which the weights must be of; transformers also takes
            "sam2", and "" for whatever the folder holds.
        weights: segment_anything: what `porting.files.locate.locate` takes. transformers: a folder,
            or a name on the hub.
        revision: commit, tag or branch on the hub; "": its newest.
        dtype: of the image encoder's products on a GPU. On a CPU, and in the mask decoder, all is
            float32.
        train_mode: batch norm uses the statistics of the one image, as in the released training
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
    """An image as the mask decoder reads it.

    Attributes:
        features: (1, d, g, g), float32, on the model's device; of SAM 2 finer maps come before.
        size: (h, w) of the image.
    """

    features: "tuple[torch.Tensor, ...]"
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Masks:
    """What SAM answers to n prompts.

    Attributes:
        masks: of each prompt the one it thinks best, at image size.
        iou: that it predicts for the three it proposes.
        chosen: which of the three.
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
        """An embedding that `clouds_jax.data.embeddings` keeps, of an image of `size` (h, w).

        Raises:
            ValueError: it is not one that this model's decoder reads.
        """
        ...

    def masks(self, embedded: Embedded, points: Int[np.ndarray, "n p 2"]) -> Masks:
        """The best mask for each set of points inside an object.

        Args:
            embedded: the image.
            points: (x, y) in pixels of the image.
        """
        ...


def load(settings: SamSettings) -> Sam:
    """The model, on the GPU if there is one.

    Raises:
        ValueError: the weights are not of the kind that the settings name.
    """
    return importlib.import_module(BACKENDS[settings.backend]).load(settings)


def identify(settings: SamSettings) -> dict[str, Any]:
    """All that decides the masks, as plain JSON, without loading the model.

    Weights on the network are fetched for it: their hash is part of it.
    """
    found = importlib.import_module(BACKENDS[settings.backend]).identify(settings)
    libraries = ("torch", settings.backend)
    return {
        "backend": settings.backend,
        "sam": settings.sam,
        "revision": settings.revision,
        "dtype": settings.dtype,
        "train_mode": settings.train_mode,
        "versions": {name: importlib.metadata.version(name) for name in libraries},
        **found,
    }
