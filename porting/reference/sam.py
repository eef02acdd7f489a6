"""SAM in PyTorch: the classes of segment_anything, with ViT or TinyViT as image encoder."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from clouds_jax.nn.sam import tiny_vit, vit
from clouds_jax.nn.sam.decoder import DecoderSize
from clouds_jax.nn.sam.registry import get_sam
from porting import _torchvision
from porting.reference.nchw import channels_first, channels_last
from porting.reference.randomise import randomise
from porting.reference.tiny_vit import TinyViT, tiny_vit_steps

Function = Callable[[torch.Tensor], torch.Tensor]
# name, the module with the weights, its function from one NCHW map to the next
Step = tuple[str, nn.Module, Function]

_VITS = {"sam_vit_b": "vit_b", "sam_vit_l": "vit_l", "sam_vit_h": "vit_h"}
_TINY_VITS = {
    "mobile_sam": "5m",
    "mobile_sam_debug": "debug",
    "medsam_lite": "5m_medical",
    "medsam_lite_debug": "debug_medical",
}
_POSITIONS = (
    0.3  # standard deviation of random position encodings; `randomise` makes them too small
)


def build_sam(name: str | None) -> Any:
    """A SAM with the initial weights of segment_anything.

    Args:
        name: key of `SAMS`; None gives the published prompt encoder and mask decoder alone.
    """
    _torchvision.prepare()
    from segment_anything import sam_model_registry

    if name is None:
        return _with_decoder(nn.Identity(), DecoderSize())
    if name in _VITS:
        return sam_model_registry[_VITS[name]]()
    if name in _TINY_VITS:
        encoder: nn.Module = TinyViT(tiny_vit.SIZES[_TINY_VITS[name]])
    else:
        encoder = _small_vit(vit.SIZES[name.removeprefix("sam_")])
    spec = get_sam(name)
    return _with_decoder(encoder, spec.decoder, pixel_mean=spec.mean, pixel_std=spec.std)


def random_decoder(size: DecoderSize, seed: int = 0) -> Any:
    """A SAM without an image encoder, with random weights (see `randomise`)."""
    _torchvision.prepare()
    encoder: Any = nn.Identity()
    encoder.img_size = size.image  # the only attribute that the other parts read
    return randomise(_with_decoder(encoder, size), seed)


def _small_vit(size: vit.ViTSize) -> nn.Module:
    """segment_anything's ViT of any size."""
    from segment_anything.modeling import ImageEncoderViT

    norm: Any = functools.partial(nn.LayerNorm, eps=1e-6)
    return ImageEncoderViT(
        img_size=size.image,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        out_chans=size.outputs,
        norm_layer=norm,
        use_rel_pos=True,
        window_size=size.window,
        global_attn_indexes=tuple(range(size.group - 1, size.depth, size.group)),
    )


def _with_decoder(encoder: Any, size: DecoderSize, **statistics: Any) -> Any:
    """A SAM with this image encoder and the other parts of segment_anything."""
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    dim = size.dim
    transformer = TwoWayTransformer(
        depth=size.depth, embedding_dim=dim, num_heads=size.heads, mlp_dim=size.ffn
    )
    model = Sam(
        encoder,
        PromptEncoder(dim, (size.grid, size.grid), (size.image, size.image), mask_in_chans=16),
        MaskDecoder(transformer_dim=dim, transformer=transformer, iou_head_hidden_dim=dim),
        **statistics,
    )
    return model.eval()


@torch.no_grad()
def random_sam(name: str | None, seed: int) -> Any:
    """A SAM with random weights (see `randomise`); `name` as in `build_sam`."""
    model = randomise(build_sam(name), seed)
    generator = torch.Generator().manual_seed(seed)
    for path, parameter in model.named_parameters():
        if path.endswith(("pos_embed", "rel_pos_h", "rel_pos_w", "attention_biases")):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * _POSITIONS)
    return model


def load_tensors(model: Any, state: Mapping[str, np.ndarray]) -> Any:
    """Loads the tensors of a file into a SAM; returns it in eval mode.

    Names of MobileSAMv2 become those of SAM. The ImageNet classifier in files with TinyViT is
    dropped.

    Raises:
        RuntimeError: the tensors are not exactly those of the model.
    """
    tensors = {}
    for name, array in state.items():
        name = name.replace("PromtEncoder.", "prompt_encoder.")
        name = name.replace("MaskDecoder.", "mask_decoder.")
        if not name.startswith(("image_encoder.head.", "image_encoder.norm_head.")):
            tensors[name] = torch.from_numpy(np.array(array))
    model.load_state_dict(tensors)
    return model.eval()


def encoder_steps(encoder: Any) -> tuple[Step, ...]:
    """The parts of an image encoder in order, from one NCHW map to the next."""
    if isinstance(encoder, TinyViT):
        return tiny_vit_steps(encoder)

    def patch(x: torch.Tensor) -> torch.Tensor:
        return channels_first(encoder.patch_embed(x) + encoder.pos_embed)

    def on_tokens(block: nn.Module) -> Function:
        return lambda x: channels_first(block(channels_last(x)))

    blocks = [(f"blocks.{i}", block, on_tokens(block)) for i, block in enumerate(encoder.blocks)]
    neck = encoder.neck
    return (("patch", encoder.patch_embed, patch), *blocks, ("neck", neck, neck))
