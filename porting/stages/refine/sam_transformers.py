"""SAM and SAM 2 with the classes of transformers, from a folder or the Hugging Face hub."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int, UInt8

from clouds_jax.nn.sam import vit
from clouds_jax.nn.sam.decoder import prompt_scale
from clouds_jax.nn.sam.registry import SamSpec, get_sam, preprocess
from porting import _torchvision
from porting.files import locate
from porting.files.open import open_checkpoint, sha256
from porting.reference.nchw import to_torch
from porting.stages.refine import sam_masks
from porting.stages.refine.sam import Embedded, Masks, SamSettings

_SAM2 = "sam2"
# model type in the config -> class; the hub's files of SAM 2 are of its video model, which contains
# the image model
_CLASSES = {"sam": "SamModel", _SAM2: "Sam2Model", "sam2_video": "Sam2Model"}
_CONFIG = "config.json"
_PROCESSOR = "preprocessor_config.json"
_SHOWN = 4  # misfits in a message


class HuggingFaceSam:
    """`porting.stages.refine.sam.Sam` with a `SamModel`.

    Args:
        model: the model with its weights.
        spec: size and normalisation of its images; other fields are not used.
        settings: dtype and chunk size.
    """

    def __init__(self, model: Any, spec: SamSpec, settings: SamSettings):
        self._model = model.to(sam_masks.device()).eval()
        self._spec = spec
        self._settings = settings

    def embed(self, image: UInt8[np.ndarray, "h w 3"]) -> Embedded:
        """See `Sam`. Images are prepared as for segment_anything.

        The processor of transformers resizes with torchvision, whose pixels differ slightly.
        """
        x = to_torch(preprocess(image[None], self._spec))
        with sam_masks.encoder_precision(self._settings.dtype):
            features = self._model.get_image_embeddings(x.to(self._model.device)).float()
        return Embedded((features,), (image.shape[0], image.shape[1]))

    def stored(self, values: Float16[np.ndarray, "g g d"], size: tuple[int, int]) -> Embedded:
        """See `Sam`."""
        prompts = self._model.config.prompt_encoder_config
        return sam_masks.from_stored(
            values, size, prompts.image_embedding_size, prompts.hidden_size
        )

    def masks(self, embedded: Embedded, points: Int[np.ndarray, "n p 2"]) -> Masks:
        """See `Sam`."""
        image = self._spec.image
        return sam_masks.best_masks(
            _mask_decoder(self._model, embedded.features[0]),
            points,
            embedded.size,
            scale=prompt_scale(embedded.size, image),
            resize=sam_masks.unpadding(image, embedded.size),
            chunk=self._settings.chunk,
        )


class HuggingFaceSam2:
    """`porting.stages.refine.sam.Sam` with a `Sam2Model`; images are stretched to a square.

    Args:
        model: the model with its weights.
        processor: image processor of the model.
        settings: dtype and chunk size.
    """

    def __init__(self, model: Any, processor: Any, settings: SamSettings):
        self._model = model.to(sam_masks.device()).eval()
        self._processor = processor
        self._settings = settings

    def embed(self, image: UInt8[np.ndarray, "h w 3"]) -> Embedded:
        """See `Sam`."""
        x = self._processor(images=image, return_tensors="pt")["pixel_values"]
        with sam_masks.encoder_precision(self._settings.dtype):
            maps = self._model.get_image_embeddings(x.to(self._model.device))
            features = tuple(x.float() for x in maps)
        return Embedded(features, (image.shape[0], image.shape[1]))

    def stored(self, values: Float16[np.ndarray, "g g d"], size: tuple[int, int]) -> Embedded:
        """See `Sam`; always raises, since no embedding of SAM 2 is stored."""
        raise ValueError(
            f"{self._settings.weights} is a SAM 2, whose decoder reads feature maps of"
            f" {len(self._model.backbone_feature_sizes)} sizes; only a single embedding per image"
            " is stored. Run its image encoder instead (embeddings=False)."
        )

    def masks(self, embedded: Embedded, points: Int[np.ndarray, "n p 2"]) -> Masks:
        """See `Sam`. Logits are resized directly to the image, as in its image processor."""
        (h, w), image = embedded.size, self._model.config.prompt_encoder_config.image_size
        return sam_masks.best_masks(
            _mask_decoder(self._model, list(embedded.features)),
            points,
            embedded.size,
            scale=(image / w, image / h),
            resize=lambda logits: sam_masks.resize_bilinear(logits, (h, w)),
            chunk=self._settings.chunk,
        )


def _mask_decoder(model: Any, features: Any) -> sam_masks.MaskDecoder:
    """The mask decoder for one embedded image."""

    def decode(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inside = torch.ones((1, *points.shape[:2]), dtype=torch.int, device=points.device)
        output = model(
            image_embeddings=features,
            input_points=points[None],
            input_labels=inside,
            multimask_output=True,
        )
        return output.pred_masks[0], output.iou_scores[0]

    return decode


def load(settings: SamSettings) -> HuggingFaceSam | HuggingFaceSam2:
    """See `porting.stages.refine.sam.load`."""
    if settings.train_mode:
        raise ValueError(
            "train_mode is about the batch norm of MobileSAM, which transformers does not have;"
            " set it to False, or use backend 'segment_anything'."
        )
    _torchvision.prepare()
    import transformers

    folder, _ = _folder(settings)
    kind, _ = _kind(folder, settings)
    if not (folder / _PROCESSOR).exists():
        raise FileNotFoundError(
            f"{settings.weights} has no {_PROCESSOR}, which says how its images are normalised;"
            " save the model's image processor there."
        )
    model, report = getattr(transformers, _CLASSES[kind]).from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported with the other misfits below
    )
    misfits = [
        *(f"{name} is missing" for name in sorted(report["missing_keys"])),
        *(f"{name} is not of the model" for name in sorted(report["unexpected_keys"])),
        *(
            f"{name} has shape {tuple(actual)}, not {tuple(wanted)}"
            for name, actual, wanted in sorted(report["mismatched_keys"])
        ),
    ]
    if misfits:
        raise ValueError(
            f"the weights of {settings.weights} are not of the {_CLASSES[kind]} in its {_CONFIG}:"
            f" {len(misfits)} misfits, {'; '.join(misfits[:_SHOWN])}; give the folder as its author"
            " saved it."
        )
    if _CLASSES[kind] == "Sam2Model":
        processor = transformers.Sam2ImageProcessor.from_pretrained(folder, local_files_only=True)
        return HuggingFaceSam2(model, processor, settings)
    processing = json.loads((folder / _PROCESSOR).read_text())
    spec = dataclasses.replace(
        get_sam("sam_vit_b"),
        image=model.config.vision_config.image_size,
        mean=tuple(255 * value for value in processing["image_mean"]),
        std=tuple(255 * value for value in processing["image_std"]),
    )
    return HuggingFaceSam(model, spec, settings)


def identify(settings: SamSettings) -> dict[str, Any]:
    """Model, name, commit and hashes of the weights and their configs."""
    folder, commit = _folder(settings)
    _, sam = _kind(folder, settings)
    hashes = open_checkpoint(folder)[1].sha256
    assert isinstance(hashes, dict)  # of a folder
    configs = [folder / name for name in (_CONFIG, _PROCESSOR) if (folder / name).exists()]
    return {
        "sam": sam,
        "weights": settings.weights if commit else folder.name,
        "revision": commit,
        "sha256": {path.name: sha256(path) for path in configs} | hashes,
    }


def _folder(settings: SamSettings) -> tuple[Path, str]:
    """The folder with config and weights, downloaded if it is on the hub, and its commit or ""."""
    name, path = settings.weights, Path(settings.weights)
    if path.is_file():
        raise ValueError(
            f"{name} is a file; backend 'transformers' reads folders with a {_CONFIG}. Files of"
            " SAM's authors are for backend 'segment_anything'."
        )
    if path.is_dir():
        if settings.revision:
            raise ValueError(f"revision is {settings.revision!r}, and {name} a folder; leave it.")
        return path.resolve(), ""
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise FileNotFoundError(f"{name} does not exist; give a folder, or org/name of the hub.")
    revision = settings.revision or "main"
    folder = locate.locate(f"{locate.HUB}{name}/{_CONFIG}@{revision}").path.parent
    commit = folder.name  # as in the cache, so that all files are of the same commit
    locate.locate(f"{locate.HUB}{name}/{_PROCESSOR}@{commit}")
    locate.locate(f"{locate.HUB}{name}@{commit}")
    return folder, commit


def _kind(folder: Path, settings: SamSettings) -> tuple[str, str]:
    """Model type and name of the SAM in a folder, checked against the settings."""
    config = json.loads(path.read_text()) if (path := folder / _CONFIG).exists() else {}
    kind = config.get("model_type")
    if kind not in _CLASSES:
        fault = f"has a {_CONFIG} of model type {kind!r}" if config else f"has no {_CONFIG}"
        raise ValueError(
            f"{settings.weights} {fault}; backend 'transformers' reads folders of model type"
            f" {', '.join(_CLASSES)}."
        )
    name = _SAM2 if _CLASSES[kind] == "Sam2Model" else _name(config)
    if settings.sam not in ("", name):
        named = f"set sam to {name!r}" if name else "it has no name here: set sam to ''"
        raise ValueError(
            f"{settings.weights} is a {_CLASSES[kind]} and not {settings.sam!r}; {named}, or give"
            " other weights."
        )
    return kind, name or kind


def _name(config: dict[str, Any]) -> str:
    """Key of `SAMS` with the ViT of a SAM's config, or ""."""
    from transformers import SamConfig

    vision: Any = SamConfig(**config).vision_config
    numbers = vision.hidden_size, vision.num_hidden_layers, vision.image_size
    for key, size in vit.SIZES.items():
        if numbers == (size.width, size.depth, size.image):
            return f"sam_{key}" if key.startswith("debug") else f"sam_vit_{key}"
    return ""
