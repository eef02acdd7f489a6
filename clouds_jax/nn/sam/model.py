"""Segment Anything as a whole: image encoder, prompt encoder, mask decoder.

Source: segment_anything (Apache-2.0), modeling/sam.py.
"""

from flax import nnx

from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks
from clouds_jax.nn.sam.tiny_vit import TinyViT, TinyViTSize
from clouds_jax.nn.sam.vit import SamViT, ViTSize


def decoder_size(encoder: ViTSize | TinyViTSize) -> DecoderSize:
    """The decoder's hyperparameters, which follow from the encoder's in all published models."""
    dim = encoder.outputs
    return DecoderSize(dim=dim, ffn=8 * dim, grid=encoder.grid, image=encoder.image)


def make_sam(encoder: ViTSize | TinyViTSize, *, rngs: nnx.Rngs) -> PromptedMasks:
    """A SAM with random weights; the type of the encoder's size chooses the encoder."""
    if isinstance(encoder, ViTSize):
        image_encoder = SamViT(encoder, rngs=rngs)
    else:
        image_encoder = TinyViT(encoder, rngs=rngs)
    return PromptedMasks(decoder_size(encoder), image_encoder=image_encoder, rngs=rngs)
