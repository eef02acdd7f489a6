"""Geometric ensemble of the trained classifier with zero-shot CLIP.

Source: FC-CLIP (Apache-2.0); CLOUDS has it behind GEOMETRIC_ENSEMBLE.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from clouds_jax.nn.mask2former.class_heads import LOGIT_SCALE, Frozen, TextRows
from clouds_jax.ops import extents, resize, text_logits
from clouds_jax.ops.extents import Extent
from clouds_jax.typing import Features, Prediction


@dataclasses.dataclass(frozen=True)
class EnsembleSize:
    """Hyperparameters of the ensemble.

    Attributes:
        rows: layout of the class matrix.
        seen: whether each class was trained.
        alpha: CLIP's exponent for classes that were trained, 0..1.
        beta: CLIP's exponent for the others, 0..1.
        valid_masks: leave CLIP out for masks without a pixel at stride 32.
    """

    rows: TextRows
    seen: tuple[bool, ...]
    alpha: float = 0.4
    beta: float = 0.8
    valid_masks: bool = False

    def __post_init__(self):
        for name in ("alpha", "beta"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise ValueError(f"EnsembleSize.{name} is {share}; a share lies in 0..1.")


@runtime_checkable
class MaskEmbedder(Protocol):
    """An encoder that embeds masks: CLIP's ConvNeXt or ResNet."""

    def pool_masks(
        self,
        res5: Float[Array, "b h w c"],
        masks: Bool[Array, "b h w q"],
        extent: Extent | None = None,
    ) -> Float[Array, "b q v"]:
        """One embedding per mask, not normalised; no mask reaches beyond its image's extent."""
        ...


class Ensemble(nnx.Module):
    """Classifies masks by the frozen encoder's embeddings, too; nothing of it is trained.

    It holds a class matrix of its own, because the trained classifier need not have one.
    """

    def __init__(self, size: EnsembleSize, *, rngs: nnx.Rngs):
        self.matrix = Frozen(size.rows.random(rngs))
        self.logit_scale = Frozen(jnp.float32(LOGIT_SCALE))
        self.size = size

    def __call__(
        self,
        prediction: Prediction,
        features: Features,
        encoder: MaskEmbedder,
        extent: Extent | None = None,
    ) -> Prediction:
        """The last output of a prediction, with the ensemble's class logits.

        Args:
            prediction: the head's.
            features: the encoder's.
            encoder: embeds the masks.
            extent: sizes of the images in a padded batch; None: they fill it.
        """
        logits = prediction.mask_logits[-1]
        res5 = features["res5"].astype(jnp.float32)
        _, h, w, _ = res5.shape
        masks = extents.clear(resize.resize_bilinear(logits, (h, w)) > 0, extent)
        embedding = encoder.pool_masks(res5, masks, extent)
        clip = text_logits.max_over_names(
            text_logits.cosine_logits(embedding, self.matrix[...], self.logit_scale[...]),
            self.size.rows.class_of_row,
        )
        share = self.share(masks.any((1, 2)))
        classes = text_logits.geometric_ensemble(prediction.class_logits[-1], clip, share)
        return Prediction(class_logits=classes[None], mask_logits=logits[None])

    def share(self, valid: Bool[Array, "b q"]) -> Float[Array, "b q k"]:
        """CLIP's exponent for each mask and class.

        Args:
            valid: whether each mask has a pixel at stride 32.
        """
        size = self.size
        of_class = jnp.where(jnp.asarray(size.seen), size.alpha, size.beta)
        counts = valid if size.valid_masks else jnp.ones_like(valid)
        return jnp.where(counts[..., None], of_class[None, None], 0.0)
