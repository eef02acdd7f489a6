"""ResNets in PyTorch: open_clip's, torchvision's, timm's, Hugging Face's, and Detectron2's.

Detectron2 is not on PyPI, so its ResNet is written out here under its names; the tests compare it
with torchvision's and Hugging Face's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clouds_jax.nn.encoders import clip_resnet, resnet
from clouds_jax.nn.encoders.resnet import ResNetSize
from porting import _torchvision
from porting.reference.encoders import Reference, Step

_OPEN_CLIP = {"clip_resnet50": "RN50", "clip_resnet101": "RN101"}
_FULL_WIDTH = 64


def open_clip_resnet(encoder: str, *, text: bool = False) -> Reference:
    """CLIP with a ResNet tower.

    Args:
        encoder: name in `ENCODERS`: `clip_resnet50`, `clip_resnet101` or `clip_resnet_debug`.
        text: keep the text tower at full size, so that the state dict is that of a real file.
    """
    _torchvision.prepare()
    import open_clip

    if encoder in _OPEN_CLIP:
        config: Any = open_clip.get_model_config(_OPEN_CLIP[encoder])
        if not text:
            config["text_cfg"].update(layers=1, width=64, heads=1)
    else:
        size = clip_resnet.SIZES[encoder]
        config = dict(
            embed_dim=size.embedding,
            vision_cfg=dict(layers=size.depths, width=size.width, image_size=32 * size.grid),
            text_cfg=dict(layers=1, width=32, heads=2, vocab_size=50, context_length=7),
        )
    model: Any = open_clip.CLIP(**config).eval()
    visual = model.visual
    layers = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
    steps, taps = _steps(visual.stem, layers)

    def embed(images: torch.Tensor) -> torch.Tensor:
        x = nn.Sequential(*layers)(visual.stem(images))
        return pool_image(visual.attnpool, x)

    return Reference(model, steps, taps, embed)


def positions(pool: Any, size: tuple[int, int]) -> torch.Tensor:
    """The attention pool's positions (1 + h w, c), resized to `size` (h, w) as in FC-CLIP."""
    learned = pool.positional_embedding
    grid = int((learned.shape[0] - 1) ** 0.5)
    spatial = learned[1:].T.reshape(1, -1, grid, grid)
    spatial = F.interpolate(spatial, size, mode="bilinear", align_corners=False)
    return torch.cat([learned[:1], spatial.flatten(2)[0].T])


def pool_image(pool: Any, x: torch.Tensor) -> torch.Tensor:
    """open_clip's attention pool of res5 (b, c, h, w), with positions resized to its size."""
    resized = {"positional_embedding": positions(pool, (x.shape[2], x.shape[3]))}
    return torch.func.functional_call(pool, resized, (x,))


def pool_masks(pool: Any, x: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """FC-CLIP's embedding (b, q, v) of each mask; undefined where a mask is empty.

    Args:
        pool: attention pool of open_clip.
        x: res5, (b, c, h, w).
        masks: boolean masks, (b, q, h, w).
    """
    b, c, h, w = x.shape
    places = positions(pool, (h, w))[:, None]
    tokens = x.flatten(2).permute(2, 0, 1)
    query = (tokens.mean(0, keepdim=True) + places[:1]).expand(masks.shape[1], b, c)
    memory = tokens + places[1:]
    pooled, _ = F.multi_head_attention_forward(
        query=query,
        key=memory,
        value=memory,
        embed_dim_to_check=c,
        num_heads=pool.num_heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        training=False,
        need_weights=False,
        attn_mask=~masks.flatten(2).repeat_interleave(pool.num_heads, dim=0),
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    return pooled.transpose(0, 1)


def torchvision_resnet(encoder: str) -> Reference:
    """torchvision's ResNet with its classifier."""
    _torchvision.prepare()
    from torchvision.models.resnet import Bottleneck, ResNet

    size = resnet.SIZES[encoder]

    class Narrow(ResNet):
        """torchvision has one width; this class scales it."""

        def _make_layer(self, block, planes, *args, **kwargs):
            planes = planes * size.width // _FULL_WIDTH
            return super()._make_layer(block, planes, *args, **kwargs)

    model: Any = Narrow(Bottleneck, list(size.depths)).eval()
    if size.width != _FULL_WIDTH:
        model.fc = nn.Linear(size.widths[-1], 10)

    def stem(x: torch.Tensor) -> torch.Tensor:
        return model.maxpool(model.relu(model.bn1(model.conv1(x))))

    return Reference(model, *_steps(stem, (model.layer1, model.layer2, model.layer3, model.layer4)))


def timm_resnet(encoder: str) -> Reference:
    """timm's ResNet with its classifier; the same names as torchvision's."""
    _torchvision.prepare()
    from timm.models.resnet import Bottleneck, ResNet

    size = resnet.SIZES[encoder]
    channels = tuple(size.width << s for s in range(4))
    block: Any = Bottleneck  # timm's annotation asks for an instance
    model: Any = ResNet(block, size.depths, channels=channels).eval()

    def stem(x: torch.Tensor) -> torch.Tensor:
        return model.maxpool(model.act1(model.bn1(model.conv1(x))))

    return Reference(model, *_steps(stem, (model.layer1, model.layer2, model.layer3, model.layer4)))


def resnet_hf(encoder: str) -> Reference:
    """Hugging Face's ResNet with its classifier, as in the files of the Hub."""
    _torchvision.prepare()  # transformers imports torchvision
    from transformers import ResNetForImageClassification

    model: Any = ResNetForImageClassification(hf_config(encoder)).eval()
    return dataclasses.replace(hf_trunk(model.resnet), module=model)


def hf_trunk(model: Any) -> Reference:
    """Hugging Face's ResNetModel or ResNetBackbone."""
    return Reference(model, *_steps(model.embedder, [s.layers for s in model.encoder.stages]))


def hf_config(encoder: str) -> Any:
    """Hugging Face's config of one of our ResNets."""
    from transformers import ResNetConfig

    size = resnet.SIZES[encoder]
    return ResNetConfig(
        embedding_size=size.stem,
        hidden_sizes=list(size.widths),
        depths=list(size.depths),
        downsample_in_bottleneck=size.stride_in_1x1,
    )


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm without a counter of batches, and with `Module`'s strict loading."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        nn.Module._load_from_state_dict(self, *args, **kwargs)


class Conv2d(nn.Conv2d):
    """A convolution with the norm after it, as a submodule."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = FrozenBatchNorm2d(outputs)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(input))


class BasicStem(nn.Module):
    def __init__(self, outputs: int):
        super().__init__()
        self.conv1 = Conv2d(3, outputs, 7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.relu(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class BottleneckBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, stride_in_1x1: bool):
        super().__init__()
        outputs = 4 * width
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = None if inputs == outputs else Conv2d(inputs, outputs, 1, stride)
        self.conv1 = Conv2d(inputs, width, 1, first)
        self.conv2 = Conv2d(width, width, 3, second)
        self.conv3 = Conv2d(width, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """Detectron2's ResNet backbone, under its names."""

    def __init__(self, size: ResNetSize):
        super().__init__()
        self.stem = BasicStem(size.stem)
        inputs = size.stem
        for s, (depth, outputs) in enumerate(zip(size.depths, size.widths, strict=True)):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 and s > 0 else 1
                blocks.append(BottleneckBlock(inputs, outputs // 4, stride, size.stride_in_1x1))
                inputs = outputs
            self.add_module(f"res{s + 2}", nn.Sequential(*blocks))


def resnet_d2(encoder: str) -> Reference:
    """Detectron2's ResNet with torchvision's weights: reads RGB."""
    model: Any = ResNet(resnet.SIZES[encoder]).eval()
    return Reference(model, *_steps(model.stem, (model.res2, model.res3, model.res4, model.res5)))


def resnet_msra(encoder: str) -> Reference:
    """Detectron2's ResNet with MSRA's weights: reads BGR.

    Its state dict has the names of MSRA's files, in the style of Caffe2.
    """
    model: Any = ResNet(resnet.SIZES[encoder]).eval()

    def renamed(_module, state, _prefix, _metadata) -> None:
        _rename(state, {name: caffe2_name(name) for name in state})

    def named_back(module, state, *_) -> None:
        own = (name for name, _ in [*module.named_parameters(), *module.named_buffers()])
        _rename(state, {caffe2_name(name): name for name in own})

    model.register_state_dict_post_hook(renamed)
    model.register_load_state_dict_pre_hook(named_back)
    steps, taps = _steps(
        lambda x: model.stem(x.flip(1)), (model.res2, model.res3, model.res4, model.res5)
    )
    return Reference(model, steps, taps)


_BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
_NORMS = {"weight": "gamma", "bias": "beta"}


def caffe2_name(name: str) -> str:
    """Name in MSRA's files of a tensor of Detectron2's ResNet.

    Written independently of `porting.tables`, so that a mistake in one of the two shows.
    """
    *block, last = name.split(".")
    normed = block[-1] == "norm"
    block = block[:-1] if normed else block
    if block[0] == "stem":
        where = "res_conv1" if normed else "conv1"
    else:
        where = f"{block[0]}_{block[1]}_{_BRANCHES[block[2]]}"
    return f"{where}_bn_{_NORMS.get(last, last)}" if normed else f"{where}_w"


def d2_name(name: str) -> str:
    """Detectron2's name of a tensor of torchvision's ResNet."""
    rest = "stem." + name
    if name.startswith("layer"):
        rest = f"res{int(name[5]) + 1}{name[6:]}"
    for i in "123":
        rest = rest.replace(f"bn{i}", f"conv{i}.norm")
    return rest.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def _rename(state: dict[str, torch.Tensor], names: Mapping[str, str]) -> None:
    for old, new in names.items():
        if old in state:
            state[new] = state.pop(old)


def _steps(stem: Any, layers: Any) -> tuple[tuple[Step, ...], dict[str, str]]:
    """Stem and blocks, and the step of each feature."""
    steps: list[Step] = [("stem", stem)]
    taps = {}
    for s, layer in enumerate(layers):
        steps += [(f"stages.{s}.blocks.{i}", block) for i, block in enumerate(layer)]
        taps[f"res{s + 2}"] = steps[-1][0]
    return tuple(steps), taps
