"""The pytrees that rooms hand to each other, and the letters of their shapes.

    b batch        q queries            d model width      n e heads, width of a head
    h w size       m target masks       k classes          l p levels, points
    c channels     o decoder outputs    s positions of all levels, flattened

Arrays are NHWC, points are (x, y) in [0, 1] of the map, sizes are (h, w).
"""

import dataclasses
import typing
from collections.abc import Mapping

import jax
from jaxtyping import Array, Bool, Float, UInt8

# "res2" ... "res5": Float["b h/4 w/4 c2"] ... Float["b h/32 w/32 c5"]
Features = Mapping[str, Array]
Metrics = dict[str, Float[Array, ""]]


@typing.no_type_check  # JAX also fills a pytree with shardings and shape structs
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Generated:
    """Generated images of one training step, without labels of their own.

    Attributes:
        image: RGB, 0..255, as the student sees them.
        clean: the same images as the teacher and SAM see them; None where they are equal.
        label: stored pseudo-labels; None where the teacher labels them.
        present: classes that are targets by the stored labels, also those without a pixel.
        embedding: embedding of `clean` by SAM's image encoder; None where SAM takes no part, or
            where the step computes it.
    """

    image: UInt8[Array, "g h w 3"]
    clean: UInt8[Array, "g h w 3"] | None = None
    label: UInt8[Array, "g h w"] | None = None
    present: Bool[Array, "g k"] | None = None
    embedding: Float[Array, "g n n d"] | None = None


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Images and labels of one training step.

    Attributes:
        image: RGB, 0..255.
        label: train ids; 255 is ignore.
        generated: generated images of the joint phase; None in the warm-up.
    """

    image: UInt8[Array, "b h w 3"]
    label: UInt8[Array, "b h w"]
    generated: Generated | None = None


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prediction:
    """Output of the Mask2Former head, for the last or all of its decoder outputs.

    Attributes:
        class_logits: the last class is no-object.
        mask_logits: at stride 4, queries last: the einsum that writes them and the gathers that
            read them are 2 to 5 times faster in this layout.

    `o` counts decoder outputs in order (0: the learned queries before any layer), or is 1 when
    only the last output was requested.
    """

    class_logits: Float[Array, "o b q k+1"]
    mask_logits: Float[Array, "o b h4 w4 q"]


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Targets:
    """Target masks, at most one per class: slot m is class m.

    Attributes:
        label: train ids; mask m is `label == m`. Any other value belongs to no mask.
        present: slots that are targets. Kept apart from the label because a target may be
            present with an empty mask.
        ignore: examples whose pixels labelled 255 take no part in the mask losses; in the others,
            or where this is None, they are negatives of every mask.
        counted: examples that take part at all; the others are padding, with labels of 255 alone
            and no mask. None: all.
    """

    label: UInt8[Array, "b h w"]
    present: Bool[Array, "b k"]
    ignore: Bool[Array, " b"] | None = None
    counted: Bool[Array, " b"] | None = None
