"""CLOUDS: a frozen encoder and a trained head."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from clouds_jax.encoders import EncoderSpec, get_encoder
from clouds_jax.nn.fpn import FPNHead, FPNSize
from clouds_jax.nn.mask2former import Mask2FormerHead, class_map, class_scores
from clouds_jax.nn.sizes import HeadSize
from clouds_jax.typing import Features

__all__ = [
    "Clouds",
    "FPNSize",
    "HeadSize",
    "build_model",
    "class_map",
    "class_scores",
    "in_head",
    "normalise",
    "pad",
]

STRIDE = 32
_DTYPES = ("float32", "bfloat16")


def in_head(path: tuple, value: Any) -> bool:
    """Whether a variable of the model is trained: the parameters of the head are."""
    return isinstance(value, nnx.Param) and path[0] == "head"


def normalise(images: Num[Array, "b h w 3"], spec: EncoderSpec) -> Float[Array, "b h w 3"]:
    """RGB images 0..255 minus the encoder's mean, over its standard deviation; float32."""
    mean = jnp.asarray(spec.mean, jnp.float32)[None, None, None]
    std = jnp.asarray(spec.std, jnp.float32)[None, None, None]
    return (images.astype(jnp.float32) - mean) / std


def pad(images: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Zeros to the right and below, up to the next multiple of 32."""
    h, w = images.shape[1:3]
    return jnp.pad(images, ((0, 0), (0, -h % STRIDE), (0, -w % STRIDE), (0, 0)))


class Clouds(nnx.Module):
    """An encoder, a head and how images reach them.

    Args:
        spec: of the encoder.
        head: from features to an output, and from the output to class scores.
        encoder_dtype: of the encoder's weights and activations; the head takes float32.
    """

    def __init__(self, spec: EncoderSpec, head: nnx.Module, *, encoder_dtype: str, rngs: nnx.Rngs):
        if encoder_dtype not in _DTYPES:
            raise ValueError(
                f"encoder_dtype is {encoder_dtype!r}; allowed are: {', '.join(_DTYPES)}."
            )
        graphdef, state = nnx.split(spec.build(rngs))
        self.encoder = nnx.merge(
            graphdef, jax.tree.map(lambda leaf: leaf.astype(encoder_dtype), state)
        )
        self.head = head
        self.spec = spec
        self.encoder_dtype = encoder_dtype

    def __call__(self, images: Num[Array, "b h w 3"], *, all_outputs: bool) -> Any:
        """The head's output for RGB images 0..255."""
        return self.head(self.encode(images), all_outputs=all_outputs)

    def encode(self, images: Num[Array, "b h w 3"]) -> Features:
        """Features res2 to res5 of RGB images 0..255, in the encoder's dtype; no gradient.

        The images are padded after normalisation, so with the mean colour.
        """
        x = pad(normalise(images, self.spec)).astype(self.encoder_dtype)
        return jax.lax.stop_gradient(self.encoder(x))

    def scores(self, images: Num[Array, "b h w 3"]) -> Float[Array, "b h w k"]:
        """Class scores at every pixel of RGB images 0..255."""
        output = self.head(self.encode(images), all_outputs=False)
        return self.head.scores(output, images.shape[1:3])


def build_model(
    encoder: str,
    head: HeadSize | FPNSize,
    classes: int,
    *,
    encoder_dtype: str = "float32",
    rngs: nnx.Rngs,
) -> Clouds:
    """A model with random weights.

    Args:
        encoder: a name in `clouds_jax.encoders.ENCODERS`.
        head: its type chooses the head.
        classes: k, without no-object.
        encoder_dtype: "float32" or "bfloat16".
    """
    spec = get_encoder(encoder)
    make = Mask2FormerHead if isinstance(head, HeadSize) else FPNHead
    return Clouds(
        spec,
        make(spec.widths, head, classes, rngs=rngs),
        encoder_dtype=encoder_dtype,
        rngs=rngs,
    )
