"""Encoders of transformers: ConvNeXt, DINOv3's ConvNeXt and the backbones of Mask2Former."""

from typing import Any

from torch import nn

from clouds_jax.nn.encoders import convnext, resnet
from porting._torchvision import prepare
from porting.reference import resnets
from porting.reference.encoders import Reference, Step
from porting.reference.saved import saved

_STAGES = ["stage1", "stage2", "stage3", "stage4"]


def convnext_hf(encoder: str) -> Reference:
    """ConvNeXt with the ImageNet classifier, or the backbone for encoders with feature norms."""
    prepare()
    import transformers

    size = convnext.SIZES[encoder.removeprefix("convnext_")]
    config = convnext_config(size)
    if size.feature_norms:
        model: Any = transformers.ConvNextBackbone(config).eval()
        return convnext_backbone(model)
    model = transformers.ConvNextForImageClassification(config).eval()
    steps, taps = _convnext_steps(model.convnext)
    return Reference(model, steps, taps)


def mask2former_trunk(encoder: str) -> Reference:
    """The backbone of a Mask2Former: a ConvNeXt with feature norms, or a ResNet."""
    prepare()
    from transformers import AutoBackbone

    return trunk_reference(AutoBackbone.from_config(trunk_config(encoder)).eval())


def trunk_config(encoder: str) -> Any:
    """Config of a backbone with all four features."""
    if encoder in resnet.SIZES:
        config = resnets.hf_config(encoder)
        config.out_features = _STAGES
        return config
    return convnext_config(convnext.SIZES[encoder.removeprefix("convnext_")])


def trunk_reference(model: Any) -> Reference:
    """The steps of a backbone, alone or as part of a Mask2Former."""
    if hasattr(model, "embedder"):
        return resnets.hf_trunk(model)
    return convnext_backbone(model)


def convnext_config(size: convnext.ConvNeXtSize) -> Any:
    """Config of a ConvNeXt with all four features."""
    import transformers

    config = transformers.ConvNextConfig(depths=list(size.depths), hidden_sizes=list(size.widths))
    config.out_features = _STAGES
    return config


def convnext_backbone(model: Any) -> Reference:
    """The steps of a ConvNextBackbone, alone or as the trunk of a Mask2Former."""
    steps, taps = _convnext_steps(model)
    norms = {f"res{i + 2}": model.hidden_states_norms[name] for i, name in enumerate(_STAGES)}
    return Reference(model, steps, taps, norms=norms)


def dinov3_convnext(encoder: str) -> Reference:
    """DINOv3's ConvNeXt, whose global feature is the embedding."""
    prepare()
    import transformers

    size = convnext.SIZES[encoder.replace("convnext_", "")]
    config = transformers.DINOv3ConvNextConfig(
        depths=list(size.depths), hidden_sizes=list(size.widths)
    )
    model: Any = transformers.DINOv3ConvNextModel(config).eval()
    steps: list[Step] = []
    taps = {}
    for s, stage in enumerate(model.model.stages):
        name = f"stages.{s}.downsample" if s else "stem"
        steps.append((name, nn.Sequential(*stage.downsample_layers)))
        steps += [(f"stages.{s}.blocks.{i}", block) for i, block in enumerate(stage.layers)]
        taps[f"res{s + 2}"] = steps[-1][0]
    return Reference(saved(model), tuple(steps), taps, lambda x: model(x).pooler_output)


def _convnext_steps(model: Any) -> tuple[tuple[Step, ...], dict[str, str]]:
    steps: list[Step] = [("stem", model.embeddings)]
    taps = {}
    for s, stage in enumerate(model.encoder.stages):
        if s > 0:
            name = f"stages.{s}.downsample"
            steps.append((name, nn.Sequential(*stage.downsampling_layer)))
        steps += [(f"stages.{s}.blocks.{i}", block) for i, block in enumerate(stage.layers)]
        taps[f"res{s + 2}"] = steps[-1][0]
    return tuple(steps), taps
