"""Refinement of pseudo-labels on the device: components, points, SAM's masks, one label map.

Static shapes, no host callback and no collective: the same inside `shard_map` for any number of
devices. Nothing here is differentiated.
"""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from clouds_jax.constants import IGNORE
from clouds_jax.nn.sam.decoder import PromptedMasks, input_size, prompt_scale
from clouds_jax.ops import components, resize
from clouds_jax.selftrain import refine_rules
from clouds_jax.selftrain.refine_rules import RefineRules


@typing.no_type_check  # JAX also fills a pytree with shapes and shardings
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Refined:
    """Refined pseudo-labels of a batch, and refinement metrics.

    Attributes:
        label: class maps to learn from; 255 where no mask is left.
        present: classes that are targets.
        points: (x, y) of the pixels that prompt SAM, per component slot.
        components: number of large components.
        confirmed: share of the pixels that keep the teacher's class.
        changed: share that got another class.
        dropped: share of pixels without a class.
        overlapped: share of pixels that several masks claim and the rules drop.
    """

    label: UInt8[Array, "b h w"]
    present: Bool[Array, "b k"]
    points: Int[Array, "b n p 2"]
    components: Int[Array, " b"]
    confirmed: Float[Array, " b"]
    changed: Float[Array, " b"]
    dropped: Float[Array, " b"]
    overlapped: Float[Array, " b"]


def draws(
    keys: Array, size: tuple[int, int], rules: RefineRules, limit: int | None = None
) -> UInt32[Array, "b n p"]:
    """The random numbers of a batch: one row of bits per component slot.

    Args:
        keys: random keys, one per image.
        size: (h, w) of the label maps.
        rules: rules of the refinement: smallest area and number of points.
        limit: most component slots; None: as many as a map can fill.
    """
    most = components.max_components(size, rules.min_area)
    n = max(1, most if limit is None else min(limit, most))
    return jax.vmap(lambda key: jax.random.bits(key, (n, rules.num_points), jnp.uint32))(keys)


def refine_labels(
    sam: PromptedMasks,
    embeddings: Float[Array, "b g g d"],
    labels: UInt8[Array, "b h w"],
    bits: UInt32[Array, "b n p"],
    *,
    rules: RefineRules,
    classes: int,
    chunk: int = 8,
) -> Refined:
    """Refines the pseudo-labels of a batch of images.

    Args:
        sam: prompt encoder and mask decoder.
        embeddings: embeddings by SAM's image encoder, of the images as augmented (flipped or not).
        labels: class maps of the teacher.
        bits: random numbers of `draws`; the number of rows bounds the components of an image.
        rules: rules of the refinement.
        classes: number of classes, k.
        chunk: prompts decoded at once, which bounds the memory.

    Source: CLOUDS (CVPR 2024), refinement with SAM inside the training forward.
    """

    def refine_image(xs):
        return _refine_one(sam, *xs, rules=rules, classes=classes, chunk=chunk)

    # one image after another, so that each decodes only the prompts it has
    return jax.lax.map(refine_image, (embeddings, labels, bits))


def _refine_one(sam, embedding, label, bits, *, rules: RefineRules, classes: int, chunk: int):
    size = label.shape
    n = bits.shape[0]
    large = components.large_components(label, min_area=rules.min_area, limit=n)
    points = components.random_points(large, bits)
    scale = jnp.asarray(prompt_scale(size, sam.image), jnp.float32)
    scaled = points.astype(jnp.float32) * scale[None, None]
    slots = -(-n // chunk) * chunk
    spare = ((0, slots - n), (0, 0), (0, 0))
    scaled = jnp.pad(scaled, spare)
    kinds = jnp.ones(scaled.shape[:2], jnp.int32)
    of_slot = jnp.pad(large.label, (0, slots - n), constant_values=IGNORE)
    valid = jnp.pad(large.valid, (0, slots - n))
    count = large.valid.sum()

    def decode(carry):
        start, claims = carry
        part = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=chunk)
        masks = best_masks(sam, embedding, part(scaled), part(kinds), size)
        masks = masks & part(valid)[:, None, None]
        return start + chunk, refine_rules.claim(claims, masks, part(of_slot), jnp)

    # as many chunks as there are components, which fill the slots from the front
    start = (jnp.zeros((), jnp.int32), refine_rules.no_claims(size, jnp))
    _, claims = jax.lax.while_loop(lambda carry: carry[0] < count, decode, start)
    masked = refine_rules.resolve(claims, rules, jnp)
    refined, present = refine_rules.targets(
        label, masked, large.label, large.valid, rules, classes, jnp
    )
    unlabelled = refined == IGNORE
    share = lambda where: where.mean(dtype=jnp.float32)  # noqa: E731
    return Refined(
        label=refined,
        present=present,
        points=points,
        components=count,
        confirmed=share((refined == label) & ~unlabelled),
        changed=share((refined != label) & ~unlabelled),
        dropped=share(unlabelled),
        overlapped=share((claims.count > 1) & (masked == IGNORE)),
    )


def best_masks(
    sam: PromptedMasks,
    embedding: Float[Array, "g g d"],
    points: Float[Array, "n p 2"],
    kinds: Int[Array, "n p"],
    size: tuple[int, int],
) -> Bool[Array, "n h w"]:
    """The mask with the highest predicted IoU, of the three that SAM proposes for a prompt.

    Args:
        sam: prompt encoder and mask decoder.
        embedding: the image's embedding.
        points: (x, y) of pixels of the image as SAM sees it, its longer side `sam.image`.
        kinds: 1 inside the object, 0 outside, -1 for no point.
        size: (h, w) of the image.

    Source: SamPredictor.predict_torch with multimask_output=True: logits resized to 1024 (the
        encoder's input), cut to the part that is image, resized to the image, above 0. Choosing
        comes first here, and so two thirds of the logits are never resized.
    """
    logits, iou = sam(embedding, points, kinds)
    best = iou.argmax(-1)[:, None, None, None]
    logits = jnp.take_along_axis(logits, best, axis=-1)
    inside = input_size(size, sam.image)
    whole = resize.resize_bilinear(logits, (sam.image, sam.image))
    whole = resize.resize_bilinear(whole[:, : inside[0], : inside[1]], size)
    return whole[..., 0] > 0
