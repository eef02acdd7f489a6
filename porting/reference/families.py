"""What PyTorch classes stand behind each family of checkpoints, by the family's name."""

import dataclasses
from collections.abc import Callable

from porting.reference import encoders
from porting.reference.encoders import Reference


@dataclasses.dataclass(frozen=True)
class Family:
    """The PyTorch side of one family.

    Attributes:
        encoder: makes the reference of an encoder by our name; None for heads alone.
        tiny: our name of the encoder of small random models.
        full: our names of all encoders that the family's files hold; the first is the default.
        head: whether the files hold a Mask2Former head.
        prefix: what stands in the files before the names of the encoder's own library.
    """

    encoder: Callable[[str], Reference] | None = None
    tiny: str = "convnext_debug"
    full: tuple[str, ...] = ("convnext_large_d_320",)
    head: bool = False
    prefix: str = ""


_CLIP_CONVNEXT = ("convnext_large_d_320", "convnext_base", "convnext_xxlarge")

FAMILIES: dict[str, Family] = {
    "open_clip_convnext": Family(encoders.open_clip_convnext, full=_CLIP_CONVNEXT),
    "timm_convnext": Family(
        lambda name: encoders.timm_convnext(name, clip=False),
        tiny="convnext_tiny",
        full=("convnext_tiny",),
    ),
    "timm_clip_convnext": Family(
        lambda name: encoders.timm_convnext(name, clip=True), full=_CLIP_CONVNEXT
    ),
    "efficientnet_lite0": Family(
        lambda _: encoders.efficientnet_lite0(),
        tiny="efficientnet_lite0",
        full=("efficientnet_lite0",),
    ),
    "mask2former_d2": Family(head=True),
    "mask2former_hf": Family(head=True),
    "clouds": Family(
        encoders.open_clip_convnext, full=_CLIP_CONVNEXT, head=True, prefix="backbone.clip_model."
    ),
}
