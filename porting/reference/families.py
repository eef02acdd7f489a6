"""The PyTorch classes behind each family of checkpoints, by the family's name."""

import dataclasses
from collections.abc import Callable

from porting.reference import detectron2, encoders, hugging_face, resnets, segformer
from porting.reference.encoders import Reference
from porting.tables import convnext_hf
from porting.tables.convnext import IMAGENET


@dataclasses.dataclass(frozen=True)
class Family:
    """The PyTorch side of one family.

    Attributes:
        encoder: builds the reference of an encoder by its name in `ENCODERS`; None for heads alone.
        tiny: encoder of small random models.
        full: all encoders of the family; the first is the default.
        head: whether the files hold a Mask2Former head.
        classifier: class head of that head, as in `HeadSize`.
        prefix: prefix in the files before the names of the encoder's own library.
    """

    encoder: Callable[[str], Reference] | None = None
    tiny: str = "convnext_debug"
    full: tuple[str, ...] = ("convnext_large_d_320",)
    head: bool = False
    classifier: str = "linear"
    prefix: str = ""


_RESNET = ("resnet50", "resnet101")
_CLIP_RESNET = ("clip_resnet50", "clip_resnet101")
_MIT = tuple(f"mit_b{number}" for number in range(6))
_CLIP_CONVNEXT = ("convnext_large_d_320", "convnext_base", "convnext_xxlarge")


def _open_clip(name: str) -> Reference:
    resnet = name.startswith("clip_resnet")
    return resnets.open_clip_resnet(name) if resnet else encoders.open_clip_convnext(name)


def _clouds(classifier: str) -> Family:
    return Family(
        _open_clip,
        full=(*_CLIP_CONVNEXT, *_CLIP_RESNET),
        head=True,
        classifier=classifier,
        prefix="backbone.clip_model.",
    )


FAMILIES: dict[str, Family] = {
    "open_clip_convnext": Family(encoders.open_clip_convnext, full=_CLIP_CONVNEXT),
    "timm_convnext": Family(
        lambda name: encoders.timm_convnext(name, clip=False),
        tiny="convnext_in22k_debug",
        full=IMAGENET,
    ),
    "timm_clip_convnext": Family(
        lambda name: encoders.timm_convnext(name, clip=True), full=_CLIP_CONVNEXT
    ),
    "efficientnet_lite0": Family(
        lambda _: encoders.efficientnet_lite0(),
        tiny="efficientnet_lite0",
        full=("efficientnet_lite0",),
    ),
    "open_clip_resnet": Family(
        resnets.open_clip_resnet, tiny="clip_resnet_debug", full=_CLIP_RESNET
    ),
    "torchvision_resnet": Family(resnets.torchvision_resnet, tiny="resnet_debug", full=_RESNET),
    "resnet_hf": Family(resnets.resnet_hf, tiny="resnet_debug", full=_RESNET),
    "resnet_d2": Family(detectron2.resnet_d2, tiny="resnet_debug", full=_RESNET),
    "resnet_msra": Family(
        detectron2.resnet_msra, tiny="resnet_msra_debug", full=("resnet50_msra", "resnet101_msra")
    ),
    "convnext_hf": Family(
        hugging_face.convnext_hf, tiny="convnext_in22k_debug", full=convnext_hf.ENCODERS
    ),
    "dinov3_convnext_hf": Family(
        hugging_face.dinov3_convnext,
        tiny="dinov3_convnext_debug",
        full=tuple(f"dinov3_convnext_{size}" for size in ("tiny", "small", "base", "large")),
    ),
    "segformer_hf": Family(segformer.segformer_hf, tiny="mit_debug", full=_MIT),
    "segformer": Family(
        segformer.segformer,
        tiny="mit_debug_nvlabs",
        full=tuple(f"{name}_nvlabs" for name in _MIT),
    ),
    "mask2former_d2": Family(
        detectron2.resnet_d2, tiny="resnet_debug", full=_RESNET, head=True, prefix="backbone."
    ),
    "mask2former_hf": Family(
        hugging_face.mask2former_trunk,
        tiny="convnext_in22k_debug_normed",
        full=(*convnext_hf.NORMED, *_RESNET),
        head=True,
        prefix="model.pixel_level_module.encoder.",
    ),
    "clouds": _clouds("linear"),
    "clouds_text": _clouds("text"),
    "clouds_pooled": _clouds("pooled"),
    "fcclip": Family(head=True, classifier="text"),
}
