"""The encoders in PyTorch: the classes of open_clip, timm and efficientnet_lite_pytorch.

Each is a `Reference`: a module whose state dict has the names of a family of checkpoints, and the
steps that lead from images to the features.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from clouds_jax.nn.encoders.convnext import SIZES, ConvNeXtSize
from porting import _torchvision

Step = tuple[str, Callable[[torch.Tensor], torch.Tensor]]

# open_clip's names of models that have the numbers of one of our sizes
_OPEN_CLIP = {
    "convnext_base": "convnext_base",
    "convnext_large_d_320": "convnext_large_d_320",
    "convnext_xxlarge": "convnext_xxlarge",
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """A PyTorch encoder.

    Attributes:
        module: what `load_state_dict` fills; names as in the family's files.
        steps: (name, function) from one feature map (NCHW) to the next, in order.
        taps: name of a feature -> the step it comes out of.
        embed: images -> image embedding, for models that have one.
        norms: name of a feature -> what it goes through on its way out, while the next step takes
            it as it was; empty for most.
    """

    module: Any  # nn.Module; its attributes are modules too, which torch's types do not know
    steps: tuple[Step, ...]
    taps: dict[str, str]
    embed: Callable[[torch.Tensor], torch.Tensor] | None = None
    norms: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = dataclasses.field(
        default_factory=dict
    )


def open_clip_convnext(encoder: str, *, text: bool = False) -> Reference:
    """CLIP with a ConvNeXt tower.

    Args:
        encoder: our name: one of open_clip's sizes, or `convnext_debug`.
        text: keep the text tower, so that the state dict is that of a real file.
    """
    _torchvision.prepare()
    import open_clip

    if encoder in _OPEN_CLIP:
        config: Any = open_clip.get_model_config(_OPEN_CLIP[encoder])
        config["vision_cfg"]["timm_model_pretrained"] = False
        if not text:
            config["text_cfg"].update(layers=1, width=64, heads=1)
    else:
        size = _size(encoder)
        _register(size)
        config = dict(
            embed_dim=size.embedding,
            vision_cfg=dict(
                timm_model_name="clouds_convnext_debug",
                timm_pool="",
                timm_proj="linear" if size.hidden is None else "mlp",
                image_size=64,
            ),
            text_cfg=dict(layers=1, width=32, heads=2, vocab_size=50, context_length=7),
        )
    config.pop("custom_text", None)
    model: Any = open_clip.CLIP(**config).eval()
    steps, taps = _convnext_steps(model.visual.trunk)
    return Reference(model, steps, taps, model.visual)


def timm_convnext(encoder: str, *, clip: bool) -> Reference:
    """timm's ConvNeXt.

    Args:
        encoder: our name.
        clip: with CLIP's visual head in place of a classifier for 1000 classes.
    """
    _torchvision.prepare()
    import timm

    size = _size(encoder)
    last: dict = dict(num_classes=1000)
    if clip:
        last = dict(num_classes=size.embedding, head_hidden_size=size.hidden)
    numbers = dict(depths=size.depths, dims=size.widths, norm_eps=size.eps)
    model: Any = timm.create_model("convnext_tiny", pretrained=False, **numbers, **last).eval()
    if clip:
        nn.init.zeros_(model.head.fc.bias)
    steps, taps = _convnext_steps(model)
    return Reference(model, steps, taps, model if clip else None)


def efficientnet_lite0() -> Reference:
    """EfficientNet-Lite0, of which the features come before the last convolution."""
    from efficientnet_lite_pytorch import EfficientNet

    model: Any = EfficientNet.from_name("efficientnet-lite0").eval()

    def stem(x: torch.Tensor) -> torch.Tensor:
        return model._swish(model._bn0(model._conv_stem(x)))

    blocks = tuple((f"blocks.{i}", block) for i, block in enumerate(model._blocks))
    taps = {"res2": "blocks.2", "res3": "blocks.4", "res4": "blocks.10", "res5": "blocks.15"}
    return Reference(model, (("stem", stem), *blocks), taps)


def _size(encoder: str) -> ConvNeXtSize:
    return SIZES[encoder.removeprefix("convnext_")]


def _convnext_steps(trunk: Any) -> tuple[tuple[Step, ...], dict[str, str]]:
    """Stem, downsamplings and blocks of timm's trunk."""
    steps: list[Step] = [("stem", trunk.stem)]
    taps = {}
    for s, stage in enumerate(trunk.stages):
        if s > 0:
            steps.append((f"stages.{s}.downsample", stage.downsample))
        steps += [(f"stages.{s}.blocks.{i}", block) for i, block in enumerate(stage.blocks)]
        taps[f"res{s + 2}"] = steps[-1][0]
    return tuple(steps), taps


@functools.cache  # timm warns when a name is registered twice
def _register(size: ConvNeXtSize) -> None:
    """Tells timm a small ConvNeXt by name, which is how open_clip asks for its trunk."""
    from timm.models import register_model
    from timm.models.convnext import ConvNeXt, _create_convnext

    def clouds_convnext_debug(pretrained: bool = False, **kwargs) -> ConvNeXt:
        numbers = dict(depths=size.depths, dims=size.widths, norm_eps=size.eps)
        return _create_convnext("convnext_tiny", pretrained=pretrained, **numbers, **kwargs)

    register_model(clouds_convnext_debug)
