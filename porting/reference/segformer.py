"""SegFormer of transformers, under Hugging Face's names and under those of the original (NVlabs).

The renaming to the original is written independently of `porting.tables`, so that a mistake in one
of the two shows.
"""

import re
from collections.abc import Callable
from typing import Any

import torch

from clouds_jax.nn.encoders import mix_transformer
from porting import _torchvision
from porting.reference.encoders import Reference, Step
from porting.reference.saved import Saved, State, saved


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
    _torchvision.prepare()
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
