"""ResNets in PyTorch: the classes of open_clip, torchvision, timm and Hugging Face."""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clouds_jax.nn.encoders import clip_resnet, resnet
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
    steps, taps = resnet_steps(visual.stem, layers)

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

    stages = model.layer1, model.layer2, model.layer3, model.layer4
    return Reference(model, *resnet_steps(stem, stages))


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

    stages = model.layer1, model.layer2, model.layer3, model.layer4
    return Reference(model, *resnet_steps(stem, stages))


def resnet_hf(encoder: str) -> Reference:
    """Hugging Face's ResNet with its classifier, as in the files of the Hub."""
    _torchvision.prepare()  # transformers imports torchvision
    from transformers import ResNetForImageClassification

    model: Any = ResNetForImageClassification(hf_config(encoder)).eval()
    return dataclasses.replace(hf_trunk(model.resnet), module=model)


def hf_trunk(model: Any) -> Reference:
    """Hugging Face's ResNetModel or ResNetBackbone."""
    return Reference(model, *resnet_steps(model.embedder, [s.layers for s in model.encoder.stages]))


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


def resnet_steps(stem: Any, layers: Any) -> tuple[tuple[Step, ...], dict[str, str]]:
    """Stem and blocks, and the step of each feature."""
    steps: list[Step] = [("stem", stem)]
    taps = {}
    for s, layer in enumerate(layers):
        steps += [(f"stages.{s}.blocks.{i}", block) for i, block in enumerate(layer)]
        taps[f"res{s + 2}"] = steps[-1][0]
    return tuple(steps), taps
