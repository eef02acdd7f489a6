"""Encoders in PyTorch: the classes of open_clip, timm and efficientnet_lite_pytorch.

Each is a `Reference`: a module whose state dict has the names of a family of checkpoints, and the
steps from images to features.
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

# our names of encoders -> open_clip's names of models of the same size
_OPEN_CLIP = {
    "convnext_base": "convnext_base",
    "convnext_large_d_320": "convnext_large_d_320",
    "convnext_xxlarge": "convnext_xxlarge",
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """A PyTorch encoder.

    Attributes:
        module: the model; its state dict has the names of the family's files.
        steps: (name, function from one NCHW feature map to the next), in order.
        taps: name of a feature -> the step whose output it is.
        embed: images -> image embedding, or None.
        norms: name of a feature -> norm of that output, which the next step does not see; empty for
            most.
    """

    module: Any  # an nn.Module, whose attributes pyright does not know to be modules
    steps: tuple[Step, ...]
    taps: dict[str, str]
    embed: Callable[[torch.Tensor], torch.Tensor] | None = None
    norms: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = dataclasses.field(
        default_factory=dict
    )


def open_clip_convnext(encoder: str, *, text: bool = False) -> Reference:
    """CLIP with a ConvNeXt tower.

    Args:
        encoder: name in `ENCODERS`: one of open_clip's sizes, or `convnext_debug`.
        text: keep the text tower at full size, so that the state dict is that of a real file.
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
        encoder: name in `ENCODERS`.
        clip: CLIP's visual head in place of the classifier for 1000 classes.
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
    """EfficientNet-Lite0; its features come before the last convolution."""
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
    """Stem, downsampling layers and blocks of timm's trunk, and the step of each feature."""
    steps: list[Step] = [("stem", trunk.stem)]
    taps = {}
    for s, stage in enumerate(trunk.stages):
        if s > 0:
            steps.append((f"stages.{s}.downsample", stage.downsample))
        steps += [(f"stages.{s}.blocks.{i}", block) for i, block in enumerate(stage.blocks)]
        taps[f"res{s + 2}"] = steps[-1][0]
    return tuple(steps), taps


@functools.cache  # timm warns if a name is registered twice
def _register(size: ConvNeXtSize) -> None:
    """Registers a small ConvNeXt with timm, since open_clip builds its trunk by name."""
    from timm.models import register_model
    from timm.models.convnext import ConvNeXt, _create_convnext

    def clouds_convnext_debug(pretrained: bool = False, **kwargs) -> ConvNeXt:
        numbers = dict(depths=size.depths, dims=size.widths, norm_eps=size.eps)
        return _create_convnext("convnext_tiny", pretrained=pretrained, **numbers, **kwargs)

    register_model(clouds_convnext_debug)
