"""Segment Anything as a whole: image encoder, prompt encoder, mask decoder.

Source: segment_anything (Apache-2.0), modeling/sam.py.
"""

from flax import nnx

from clouds_jax.nn.sam_decoder import DecoderSize, PromptedMasks
from clouds_jax.nn.sam_vit import SamViT, ViTSize
from clouds_jax.nn.tiny_vit import TinyViT, TinyViTSize


class Sam(PromptedMasks):
    """`PromptedMasks` together with the encoder of the images."""

    def __init__(self, encoder: ViTSize | TinyViTSize, *, rngs: nnx.Rngs):
        # the decoder's numbers follow from the embedding's in all published models
        same = DecoderSize(
            dim=encoder.outputs, ffn=8 * encoder.outputs, grid=encoder.grid, image=encoder.image
        )
        super().__init__(same, rngs=rngs)
        if isinstance(encoder, ViTSize):
            self.image_encoder = SamViT(encoder, rngs=rngs)
        else:
            self.image_encoder = TinyViT(encoder, rngs=rngs)
