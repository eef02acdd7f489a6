"""Segment Anything as a whole: image encoder, prompt encoder, mask decoder.

Source: segment_anything (Apache-2.0), modeling/sam.py.
"""

from flax import nnx

from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks
from clouds_jax.nn.sam.tiny_vit import TinyViT, TinyViTSize
from clouds_jax.nn.sam.vit import SamViT, ViTSize


def decoder_size(encoder: ViTSize | TinyViTSize) -> DecoderSize:
    """The decoder's numbers, which follow from the embedding's in all published models."""
    dim = encoder.outputs
    return DecoderSize(dim=dim, ffn=8 * dim, grid=encoder.grid, image=encoder.image)


def make_sam(encoder: ViTSize | TinyViTSize, *, rngs: nnx.Rngs) -> PromptedMasks:
    """A SAM with its image encoder, random weights."""
    make = SamViT if isinstance(encoder, ViTSize) else TinyViT
    return PromptedMasks(decoder_size(encoder), image_encoder=make(encoder, rngs=rngs), rngs=rngs)
