"""CLOUDS: an encoder, usually frozen, and a trained head."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from clouds_jax.nn import clip_text
from clouds_jax.nn.encoders.registry import EncoderSpec, get_encoder
from clouds_jax.nn.fpn import FPNHead, FPNSize
from clouds_jax.nn.mask2former.class_heads import TextRows
from clouds_jax.nn.mask2former.ensemble import Ensemble, EnsembleSize
from clouds_jax.nn.mask2former.head import Mask2FormerHead, class_map, class_scores
from clouds_jax.nn.mask2former.size import DTYPES, HeadSize
from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks
from clouds_jax.ops import extents
from clouds_jax.ops.extents import STRIDE, Extent
from clouds_jax.typing import Features

__all__ = [
    "Clouds",
    "EnsembleSize",
    "FPNSize",
    "HeadSize",
    "TextRows",
    "build_model",
    "class_map",
    "class_scores",
    "normalise",
    "pad",
    "text_rows",
]


def normalise(images: Num[Array, "b h w 3"], spec: EncoderSpec) -> Float[Array, "b h w 3"]:
    """Subtracts the encoder's mean from RGB images 0..255 and divides by its standard deviation."""
    mean = jnp.asarray(spec.mean, jnp.float32)[None, None, None]
    std = jnp.asarray(spec.std, jnp.float32)[None, None, None]
    return (images.astype(jnp.float32) - mean) / std


def pad(images: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Pads with zeros to the right and below, up to the next multiple of 32."""
    h, w = images.shape[1:3]
    return jnp.pad(images, ((0, 0), (0, -h % STRIDE), (0, -w % STRIDE), (0, 0)))


@runtime_checkable
class Head(Protocol):
    """A segmentation head: `Mask2FormerHead` or `FPNHead`."""

    def __call__(
        self, features: Features, *, all_outputs: bool, extent: Extent | None = None
    ) -> Any:
        """The head's output, for its loss; `all_outputs`: of every decoder layer."""
        ...

    def scores(
        self, output: Any, size: tuple[int, int], extent: Extent | None = None
    ) -> Float[Array, "b h w k"]:
        """Class scores at every pixel of images of `size` (h, w)."""
        ...


class Clouds(nnx.Module):
    """An encoder and a head, applied to RGB images.

    Args:
        spec: builds the encoder; its statistics normalise the images.
        head: a trained `nnx.Module`.
        ensemble: joins the head's class logits with CLIP's before scoring; None: no ensemble.
        sam: refines pseudo-labels in the joint phase, never trained; None: no SAM.
        encoder_dtype: "float32" or "bfloat16", of the encoder's weights and activations; the head
            has a dtype of its own.

    Raises:
        ValueError: another encoder_dtype.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        head: Head,
        *,
        ensemble: Ensemble | None = None,
        sam: PromptedMasks | None = None,
        encoder_dtype: str,
        rngs: nnx.Rngs,
    ):
        if encoder_dtype not in DTYPES:
            raise ValueError(
                f"encoder_dtype is {encoder_dtype!r}; allowed are: {', '.join(DTYPES)}."
            )
        graphdef, state = nnx.split(spec.build(rngs))
        self.encoder: Any = nnx.merge(
            graphdef,
            jax.tree.map(
                lambda x: x if x.dtype == encoder_dtype else x.astype(encoder_dtype), state
            ),
        )
        self.head = head
        self.ensemble = ensemble
        self.sam = sam
        self.spec = spec
        self.encoder_dtype = encoder_dtype

    def __call__(self, images: Num[Array, "b h w 3"], *, all_outputs: bool) -> Any:
        """The head's output for RGB images 0..255; `all_outputs`: of every decoder layer."""
        return self.head(self.encode(images), all_outputs=all_outputs)

    def encode(
        self, images: Num[Array, "b h w 3"], *, extent: Extent | None = None, **kwargs: Any
    ) -> Features:
        """Features res2 to res5 of RGB images 0..255, in the encoder's dtype.

        Images are padded after normalisation, which pads them with the mean colour.

        Args:
            images: RGB, of any size.
            extent: sizes of the images in a padded batch, whose padding may be anything; None: they
                fill it.
            kwargs: passed on to the encoder.
        """
        x = extents.clear_pixels(normalise(images, self.spec), extent)
        x = pad(x).astype(self.encoder_dtype)
        if extent is not None:
            kwargs["extent"] = extent
        return self.encoder(x, **kwargs)

    def scores(self, images: Num[Array, "b h w 3"]) -> Float[Array, "b h w k"]:
        """Class scores at every pixel of RGB images 0..255."""
        return self._scores(images)

    def padded_scores(
        self, images: Num[Array, "b h w 3"], sizes: Int[Array, "b 2"]
    ) -> Float[Array, "b h w k"]:
        """Class scores of images in a padded batch: those of `scores` of each image alone.

        Args:
            images: RGB 0..255, each in the top left corner; what surrounds it does not matter.
            sizes: (h, w) of each image. Scores beyond it mean nothing.
        """
        _, h, w, _ = images.shape
        padded = h + -h % STRIDE, w + -w % STRIDE
        return self._scores(images, extent=Extent(sizes, padded))

    def _scores(self, images: Num[Array, "b h w 3"], **extent: Extent) -> Float[Array, "b h w k"]:
        features = self.encode(images, **extent)
        output = self.head(features, all_outputs=False, **extent)
        if self.ensemble is not None:
            output = self.ensemble(output, features, self.encoder, **extent)
        _, h, w, _ = images.shape
        return self.head.scores(output, (h, w), **extent)


def text_rows(encoder: str, class_of_row: Sequence[int]) -> TextRows:
    """The layout of a class matrix made by a CLIP encoder's text tower.

    Args:
        encoder: name of a CLIP encoder.
        class_of_row: class that each row is a name of, ascending.

    Raises:
        ValueError: the encoder has no text tower.
    """
    if encoder not in clip_text.SIZES:
        raise ValueError(
            f"encoder {encoder!r} has no text tower, which the text classifier and the ensemble"
            f" need; those that have are: {', '.join(clip_text.SIZES)}."
        )
    return TextRows(tuple(class_of_row), clip_text.SIZES[encoder].embedding)


def build_model(
    encoder: str,
    head: HeadSize | FPNSize,
    classes: int,
    *,
    rows: TextRows | None = None,
    ensemble: EnsembleSize | None = None,
    sam: DecoderSize | Callable[[nnx.Rngs], PromptedMasks] | None = None,
    encoder_dtype: str = "float32",
    rngs: nnx.Rngs,
) -> Clouds:
    """Builds a model with random weights.

    Args:
        encoder: name in `clouds_jax.nn.encoders.registry.ENCODERS`.
        head: hyperparameters of the head; their type chooses it.
        classes: number of classes k, without no-object.
        rows: layout of the class matrix, where `head.classifier` is "text".
        ensemble: hyperparameters of the ensemble; None: no ensemble.
        sam: hyperparameters of SAM's prompt encoder and mask decoder, or a function that builds a
            whole SAM; None: no SAM.
        encoder_dtype: "float32" or "bfloat16".
    """
    spec = get_encoder(encoder)
    if isinstance(head, HeadSize):
        head_module = Mask2FormerHead(spec.widths, head, classes, rows=rows, rngs=rngs)
    else:
        head_module = FPNHead(spec.widths, head, classes, rngs=rngs)
    return Clouds(
        spec,
        head_module,
        ensemble=None if ensemble is None else Ensemble(ensemble, rngs=rngs),
        sam=PromptedMasks(sam, rngs=rngs) if isinstance(sam, DecoderSize) else sam and sam(rngs),
        encoder_dtype=encoder_dtype,
        rngs=rngs,
    )
