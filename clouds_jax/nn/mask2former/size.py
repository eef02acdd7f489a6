"""Hyperparameters of the Mask2Former head."""

import dataclasses

CLASSIFIERS = ("linear", "text", "pooled")
DTYPES = ("float32", "bfloat16")  # of activations, here and in encoders


@dataclasses.dataclass(frozen=True)
class HeadSize:
    """Hyperparameters of the Mask2Former head; the defaults are those of CLOUDS.

    Attributes:
        num_queries: learned queries, one mask each.
        dim: width of both decoders; a multiple of num_heads.
        num_heads: attention heads of both decoders.
        pixel_layers: deformable layers of the pixel decoder.
        pixel_ffn: hidden width of their FFN.
        decoder_layers: layers of the transformer decoder; a multiple of the 3 feature levels.
        decoder_ffn: hidden width of their FFN.
        num_points: sampling points per head and level of the deformable attention.
        classifier: class head: "linear", "text" or "pooled"; see `class_heads`.
        dtype: dtype of the activations, "float32" or "bfloat16". Weights, normalisation, softmax,
            sampling points, class and mask logits are float32 either way.
    """

    num_queries: int = 100
    dim: int = 256
    num_heads: int = 8
    pixel_layers: int = 6
    pixel_ffn: int = 1024
    decoder_layers: int = 9
    decoder_ffn: int = 2048
    num_points: int = 4
    classifier: str = "linear"
    dtype: str = "float32"

    def __post_init__(self):
        if self.decoder_layers % 3:
            raise ValueError(
                f"HeadSize.decoder_layers is {self.decoder_layers}; the layers read 3 feature "
                "levels in turn, so it must be a multiple of 3."
            )
        if self.dim % self.num_heads:
            raise ValueError(
                f"HeadSize.dim is {self.dim}, not a multiple of num_heads = {self.num_heads}."
            )
        if self.classifier not in CLASSIFIERS:
            raise ValueError(
                f"HeadSize.classifier is {self.classifier!r}; it must be one of:"
                f" {', '.join(CLASSIFIERS)}."
            )
        check_dtype("HeadSize", self.dtype)


def check_dtype(owner: str, dtype: str) -> None:
    """Refuses a dtype of activations that is not one of `DTYPES`; `owner` is for the message."""
    if dtype not in DTYPES:
        raise ValueError(f"{owner}.dtype is {dtype!r}; it must be one of: {', '.join(DTYPES)}.")
