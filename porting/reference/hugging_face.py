"""Encoders of transformers: SegFormer, ConvNeXt and DINOv3's ConvNeXt.

Transformers 5 gives some tensors other names in memory than in its files; `Saved` wraps a module so
that its state dict has the names of the files. The renaming is transformers' own; that of
SegFormer's original is written independently of `porting.tables`, so that a mistake in one of the
two shows.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from clouds_jax.nn.encoders import convnext, mix_transformer, resnet
from porting._torchvision import prepare
from porting.reference import resnets
from porting.reference.encoders import Reference, Step

State = Mapping[str, torch.Tensor]
_STAGES = ["stage1", "stage2", "stage3", "stage4"]


class Saved(nn.Module):
    """A module whose state dict is that of its files.

    Args:
        module: a model of transformers.
        to_files: state dict of the module -> state dict of the file.
        from_files: the inverse.
    """

    def __init__(
        self,
        module: Any,
        to_files: Callable[[State], dict[str, torch.Tensor]],
        from_files: Callable[[State], dict[str, torch.Tensor]],
    ):
        super().__init__()
        self.module = module
        self.to_files = to_files
        self.from_files = from_files

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        return self.to_files(self.module.state_dict(*args, **kwargs))

    def load_state_dict(self, state_dict: State, strict: bool = True, assign: bool = False) -> Any:
        return self.module.load_state_dict(self.from_files(state_dict), strict, assign)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def saved(model: Any) -> Saved:
    """Wraps a model of transformers so that its names are those of `save_pretrained`."""
    from transformers.core_model_loading import revert_weight_conversion

    names = {
        own: next(iter(revert_weight_conversion(model, {own: tensor})))
        for own, tensor in model.state_dict().items()
    }
    back = {name: own for own, name in names.items()}
    return Saved(
        model,
        lambda state: {names[own]: tensor for own, tensor in state.items()},
        lambda state: {back[name]: tensor for name, tensor in state.items()},
    )


def segformer_hf(encoder: str, *, segmenter: bool = True) -> Reference:
    """SegFormer of transformers.

    Args:
        encoder: name in `ENCODERS`.
        segmenter: decode head in place of the ImageNet classifier.
    """
    model = _segformer(mix_transformer.SIZES[encoder.removeprefix("mit_")], segmenter)
    steps, taps = _segformer_steps(model.segformer)
    return Reference(saved(model), steps, taps)


def segformer(encoder: str) -> Reference:
    """SegFormer under the names of the original, and with its LayerNorm epsilon."""
    name = encoder.removeprefix("mit_").removesuffix("_nvlabs")
    model = _segformer(mix_transformer.SIZES[name], segmenter=False)
    for stage in model.segformer.stages:
        norms = [stage.layer_norm]
        norms += [norm for b in stage.blocks for norm in (b.layernorm_before, b.layernorm_after)]
        for norm in norms:
            norm.eps = 1e-6
    steps, taps = _segformer_steps(model.segformer)
    return Reference(saved_as_original(model), steps, taps)


def _segformer(size: mix_transformer.MiTSize, segmenter: bool) -> Any:
    prepare()
    import transformers

    config = transformers.SegformerConfig(depths=list(size.depths), hidden_sizes=list(size.widths))
    if segmenter:
        return transformers.SegformerForSemanticSegmentation(config).eval()
    return transformers.SegformerForImageClassification(config).eval()


def _segformer_steps(model: Any) -> tuple[tuple[Step, ...], dict[str, str]]:
    """Embeddings, blocks and norms as functions of maps; transformers' own take sequences."""

    def embed(x: torch.Tensor, of: Any) -> torch.Tensor:
        sequence, h, w = of(x)
        return sequence.transpose(1, 2).unflatten(2, (h, w))

    def block(x: torch.Tensor, of: Any) -> torch.Tensor:
        h, w = x.shape[2:]
        return of(x.flatten(2).transpose(1, 2), h, w).transpose(1, 2).unflatten(2, (h, w))

    def norm(x: torch.Tensor, of: Any) -> torch.Tensor:
        return of(x.movedim(1, -1)).movedim(-1, 1)

    steps: list[Step] = []
    for s, stage in enumerate(model.stages):
        steps.append((f"stages.{s}.embed", _bound(embed, stage.patch_embeddings)))
        steps += [(f"stages.{s}.blocks.{i}", _bound(block, b)) for i, b in enumerate(stage.blocks)]
        steps.append((f"stages.{s}.norm", _bound(norm, stage.layer_norm)))
    return tuple(steps), {f"res{s + 2}": f"stages.{s}.norm" for s in range(len(model.stages))}


def _bound(function: Callable[..., torch.Tensor], module: Any) -> Callable:
    return lambda x: function(x, module)


# names in memory -> names of the original, whose stages count from 1
_IN_STAGE = (
    (r"patch_embeddings\.proj\.(\w+)", r"patch_embed{s}.proj.\1"),
    (r"patch_embeddings\.layer_norm\.(\w+)", r"patch_embed{s}.norm.\1"),
    (r"blocks\.(\d+)\.layernorm_before\.(\w+)", r"block{s}.\1.norm1.\2"),
    (r"blocks\.(\d+)\.layernorm_after\.(\w+)", r"block{s}.\1.norm2.\2"),
    (r"blocks\.(\d+)\.attention\.([qkv])_proj\.(\w+)", r"block{s}.\1.attn.\2.\3"),
    (r"blocks\.(\d+)\.attention\.o_proj\.(\w+)", r"block{s}.\1.attn.proj.\2"),
    (
        r"blocks\.(\d+)\.attention\.sequence_reduction\.sequence_reduction\.(\w+)",
        r"block{s}.\1.attn.sr.\2",
    ),
    (
        r"blocks\.(\d+)\.attention\.sequence_reduction\.layer_norm\.(\w+)",
        r"block{s}.\1.attn.norm.\2",
    ),
    (r"blocks\.(\d+)\.mlp\.(.*)", r"block{s}.\1.mlp.\2"),
    (r"layer_norm\.(\w+)", r"norm{s}.\1"),
)


def original_name(name: str) -> str:
    """The original's name of a tensor; keys and values not yet fused, as `attn.k` and `attn.v`."""
    if name.startswith("classifier."):
        return name.replace("classifier", "head")
    stage = re.fullmatch(r"segformer\.stages\.(\d)\.(.*)", name)
    for pattern, template in _IN_STAGE:
        if stage and (match := re.fullmatch(pattern, stage[2])):
            return match.expand(template.replace("{s}", str(int(stage[1]) + 1)))
    raise KeyError(f"{name} has no name in the original")


def saved_as_original(model: Any) -> Saved:
    """Wraps a SegFormer so that its names are the original's, with keys and values fused."""
    names = {own: original_name(own) for own in model.state_dict()}
    back = {name: own for own, name in names.items()}

    def to_files(state: State) -> dict[str, torch.Tensor]:
        renamed = {names[own]: tensor for own, tensor in state.items()}
        fused = {}
        for name, tensor in renamed.items():
            if ".attn.k." in name:
                values = renamed[name.replace(".attn.k.", ".attn.v.")]
                fused[name.replace(".attn.k.", ".attn.kv.")] = torch.cat([tensor, values])
            elif ".attn.v." not in name:
                fused[name] = tensor
        return fused

    def from_files(state: State) -> dict[str, torch.Tensor]:
        split = {}
        for name, tensor in state.items():
            if ".attn.kv." in name:
                keys, values = tensor.chunk(2)
                split[name.replace(".kv.", ".k.")] = keys
                split[name.replace(".kv.", ".v.")] = values
            else:
                split[name] = tensor
        return {back[name]: tensor for name, tensor in split.items()}

    return Saved(model, to_files, from_files)


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
