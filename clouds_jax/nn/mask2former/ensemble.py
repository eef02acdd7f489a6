"""CLIP's own opinion of the masks, joined with that of the trained classifier.

Source: the geometric ensemble of FC-CLIP (Apache-2.0), which CLOUDS has behind GEOMETRIC_ENSEMBLE.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from clouds_jax.nn.mask2former.class_heads import LOGIT_SCALE, Frozen, TextRows
from clouds_jax.ops import resize, text_logits
from clouds_jax.typing import Features, Prediction


@dataclasses.dataclass(frozen=True)
class EnsembleSize:
    """Numbers of the ensemble.

    Attributes:
        rows: form of the class matrix.
        seen: whether each class was trained.
        alpha: share of CLIP's vote for classes that were trained.
        beta: share of CLIP's vote for the others.
        valid_masks: leave CLIP out where a mask has no pixel at stride 32.
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


class Ensemble(nnx.Module):
    """Asks the frozen encoder what each mask shows; nothing of it is trained.

    The matrix is a copy of its own: the trained classifier may be a linear one.
    """

    def __init__(self, size: EnsembleSize, *, rngs: nnx.Rngs):
        self.matrix = Frozen(size.rows.random(rngs))
        self.logit_scale = Frozen(jnp.float32(LOGIT_SCALE))
        self.size = size

    def __call__(
        self, prediction: Prediction, features: Features, encoder: nnx.Module
    ) -> Prediction:
        """The prediction with new class logits for its last output, which alone remains.

        Args:
            prediction: of the head.
            features: of the encoder.
            encoder: a CLIP encoder, for its `pool_masks`.
        """
        logits = prediction.mask_logits[-1]
        res5 = features["res5"].astype(jnp.float32)
        masks = resize.resize_bilinear(logits, res5.shape[1:3]) > 0
        embedding = encoder.pool_masks(res5, masks)
        clip = text_logits.max_over_names(
            text_logits.cosine_logits(embedding, self.matrix[...], self.logit_scale[...]),
            self.size.rows.class_of_row,
        )
        share = self.share(masks.any((1, 2)))
        classes = text_logits.geometric_ensemble(prediction.class_logits[-1], clip, share)
        return Prediction(class_logits=classes[None], mask_logits=logits[None])

    def share(self, valid: Bool[Array, "b q"]) -> Float[Array, "b q k"]:
        """Of CLIP's vote, by mask and class."""
        size = self.size
        of_class = jnp.where(jnp.asarray(size.seen), size.alpha, size.beta)
        counts = valid if size.valid_masks else jnp.ones_like(valid)
        return jnp.where(counts[..., None], of_class[None, None], 0.0)
