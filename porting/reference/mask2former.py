"""The Mask2Former head in PyTorch: the classes of Hugging Face, for an encoder of any widths.

Only the parts of Mask2FormerForUniversalSegmentation are used, so that features of any encoder can
be fed in. The names of the state dict are those of the whole model.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from clouds_jax.nn.mask2former.size import HeadSize
from porting import _torchvision
from porting.reference.class_heads import PooledPredictor, TextPredictor

_PIXEL = "model.pixel_level_module.decoder."
_TRANSFORMER = "model.transformer_module."


class Head(nn.Module):
    """Pixel decoder, transformer decoder and class head.

    Args:
        widths: channels of res2 to res5.
        size: dimensions and class head.
        classes: number of classes k, without no-object.
        matrix: unit vectors (r, v) of the text class head.
        counts: number of rows of each class in the matrix.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        size: HeadSize,
        classes: int,
        matrix: torch.Tensor | None = None,
        counts: Sequence[int] = (),
    ):
        super().__init__()
        _torchvision.prepare()  # transformers imports torchvision
        from transformers import Mask2FormerConfig
        from transformers.models.mask2former import modeling_mask2former as hf

        config = Mask2FormerConfig(
            feature_size=size.dim,
            mask_feature_size=size.dim,
            hidden_dim=size.dim,
            num_attention_heads=size.num_heads,
            encoder_layers=size.pixel_layers,
            encoder_feedforward_dim=size.pixel_ffn,
            decoder_layers=size.decoder_layers + 1,
            dim_feedforward=size.decoder_ffn,
            num_queries=size.num_queries,
            dropout=0.0,
        )
        if size.num_points != 4:
            raise ValueError(f"Hugging Face samples 4 points per head and level, not {size}.")
        self.model: Any = nn.Module()
        self.model.pixel_level_module = nn.Module()
        self.model.pixel_level_module.decoder = hf.Mask2FormerPixelDecoder(config, list(widths))
        self.model.transformer_module = hf.Mask2FormerTransformerModule(size.dim, config)
        if size.classifier == "text":
            assert matrix is not None
            self.class_predictor = TextPredictor(size.dim, matrix, counts)
        elif size.classifier == "pooled":
            self.class_predictor = PooledPredictor(size.dim, classes)
        else:
            self.class_predictor = nn.Linear(size.dim, classes + 1)
        self.heads = size.num_heads
        self.classes = classes
        self.eval()

    @property
    def pixel_decoder(self) -> Any:
        return self.model.pixel_level_module.decoder

    @property
    def transformer(self) -> Any:
        return self.model.transformer_module

    def forward(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Class logits (o, b, q, k+1) and mask logits (o, b, q, h4, w4) of features res2..res5."""
        pixel = self.pixel_decoder(features, return_dict=True)
        output = self.transformer(
            multi_scale_features=pixel.multi_scale_features, mask_features=pixel.mask_features
        )
        # intermediate queries are (q, b, d)
        masks = output.masks_queries_logits
        classes = [
            self._classify(x.transpose(0, 1), pixel.mask_features, mask)
            for x, mask in zip(output.intermediate_hidden_states, masks, strict=True)
        ]
        return torch.stack(classes), torch.stack(masks)

    def _classify(
        self, queries: torch.Tensor, features: torch.Tensor, masks: torch.Tensor
    ) -> torch.Tensor:
        if isinstance(self.class_predictor, nn.Linear):
            return self.class_predictor(queries)
        return self.class_predictor(queries, features, masks)


# Names of Hugging Face -> names of the original (Detectron2's zoo, CLOUDS), spec 8.5. Written
# independently of `porting.tables`, so that a mistake in one of the two shows.
_D = "sem_seg_head.pixel_decoder."
_P = "sem_seg_head.predictor."
_E = _D + r"transformer.encoder.layers.\1."
_PIXEL_LAYER = _PIXEL + r"encoder.layers.(\d+)."
_LAYER = _TRANSFORMER + r"decoder.layers.(\d+)."
_ORIGINAL = (
    (_PIXEL + r"input_projections.(\d.\d.\w+)", _D + r"input_proj.\1"),
    (_PIXEL + "level_embed", _D + "transformer.level_embed"),
    (_PIXEL_LAYER + r"self_attn_layer_norm.(\w+)", _E + r"norm1.\2"),
    (_PIXEL_LAYER + r"final_layer_norm.(\w+)", _E + r"norm2.\2"),
    (_PIXEL_LAYER + r"fc(\d.\w+)", _E + r"linear\2"),
    (_PIXEL_LAYER + r"(self_attn.*)", _E + r"\2"),
    (_PIXEL + r"(adapter_1|layer_1).0.weight", _D + r"\1.weight"),
    (_PIXEL + r"(adapter_1|layer_1).1.(\w+)", _D + r"\1.norm.\2"),
    (_PIXEL + r"mask_projection.(\w+)", _D + r"mask_features.\1"),
    (_LAYER + r"self_attn_layer_norm.(\w+)", _P + r"transformer_self_attention_layers.\1.norm.\2"),
    (_LAYER + r"(self_attn.*)", _P + r"transformer_self_attention_layers.\1.\2"),
    (
        _LAYER + r"cross_attn_layer_norm.(\w+)",
        _P + r"transformer_cross_attention_layers.\1.norm.\2",
    ),
    (
        _LAYER + r"cross_attn.(.*)",
        _P + r"transformer_cross_attention_layers.\1.multihead_attn.\2",
    ),
    (_LAYER + r"final_layer_norm.(\w+)", _P + r"transformer_ffn_layers.\1.norm.\2"),
    (_LAYER + r"fc(\d.\w+)", _P + r"transformer_ffn_layers.\1.linear\2"),
    (_TRANSFORMER + r"decoder.layernorm.(\w+)", _P + r"decoder_norm.\1"),
    (
        _TRANSFORMER + r"decoder.mask_predictor.mask_embedder.(\d).0.(\w+)",
        _P + r"mask_embed.layers.\1.\2",
    ),
    (_TRANSFORMER + "queries_embedder.weight", _P + "query_embed.weight"),
    (_TRANSFORMER + "queries_features.weight", _P + "query_feat.weight"),
    (_TRANSFORMER + "level_embed.weight", _P + "level_embed.weight"),
    (r"class_predictor.(void_embedding.weight)", r"\1"),
    (r"class_predictor.(logit_scale|_mask_pooling_proj.*|class_embed.*)", _P + r"\1"),
    (r"class_predictor.(\w+)", _P + r"class_embed.\1"),
)
_THIRD = re.compile(r"(.*self_attn)\.([qkv])_proj\.(weight|bias)")


def original_name(name: str) -> str:
    """The original's name of a tensor of `Head`."""
    for pattern, template in _ORIGINAL:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(template)
    raise KeyError(f"{name} has no name in the original")


def to_original(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames the state dict of `Head` to the original's names and fuses the self-attention."""
    renamed: dict[str, torch.Tensor] = {}
    thirds: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        new = original_name(name)
        third = _THIRD.fullmatch(new)
        if third and new.startswith(_P):
            fused = f"{third[1]}.in_proj_{third[3]}"
            thirds.setdefault(fused, {})[third[2]] = tensor
        else:
            renamed[new] = tensor
    fused = {name: torch.cat([parts[k] for k in "qkv"]) for name, parts in thirds.items()}
    return renamed | fused


def from_original(head: Head, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames the original's tensors to the names of `head` and drops all others."""
    renamed = {}
    for name in head.state_dict():
        new = original_name(name)
        third = _THIRD.fullmatch(new)
        if third and new.startswith(_P):
            fused = state[f"{third[1]}.in_proj_{third[3]}"]
            renamed[name] = fused.chunk(3)["qkv".index(third[2])]
        else:
            old = new.replace("query_feat", "static_query")
            renamed[name] = state[old if old in state else new]
    return renamed
