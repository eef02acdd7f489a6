"""Conversions between label maps and class masks, and mean features under masks."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from clouds_jax.constants import IGNORE


def present_classes(label: UInt8[Array, "b h w"], classes: int) -> Bool[Array, "b k"]:
    """Which of the ids 0..classes - 1 occur in each label map."""
    ids = jnp.arange(classes, dtype=label.dtype)[None, None, None, :]
    return jnp.any(label[..., None] == ids, axis=(1, 2))


def masks_of_label(label: UInt8[Array, "b h w"], classes: int) -> Bool[Array, "b k h w"]:
    """The mask `label == id` of every id 0..classes - 1."""
    ids = jnp.arange(classes, dtype=label.dtype)[None, :, None, None]
    return label[:, None] == ids


def label_of_masks(masks: Bool[Array, "b k h w"]) -> UInt8[Array, "b h w"]:
    """The id of the only mask that covers each pixel; 255 where none or several do."""
    count = jnp.sum(masks, axis=1, dtype=jnp.int32)
    return jnp.where(count == 1, jnp.argmax(masks, axis=1), IGNORE).astype(jnp.uint8)


def pool_masks(
    features: Float[Array, "b h w c"], masks: Bool[Array, "b h w q"]
) -> Float[Array, "b q c"]:
    """The mean of `features` under each mask; 0 for an empty mask.

    Returns:
        Means in the dtype of `features`; sums are float32.

    Source: FC-CLIP's MaskPooling, which divides by area + 1e-8.
    """
    total = jnp.einsum(
        "bhwc,bhwq->bqc",
        features,
        masks.astype(features.dtype),
        preferred_element_type=jnp.float32,
    )
    area = jnp.sum(masks, axis=(1, 2), dtype=jnp.float32)
    return (total / (area + 1e-8)[..., None]).astype(features.dtype)
