"""SAM with the classes of segment_anything, from its authors' files: ViT-B, L, H, TinyViT."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int, UInt8
from torch import nn

from clouds_jax.nn.sam.decoder import prompt_scale
from clouds_jax.nn.sam.registry import SAMS, get_sam, preprocess
from porting.files.locate import HUB
from porting.files.open import Provenance, open_checkpoint
from porting.reference import sam as reference
from porting.reference.nchw import to_torch
from porting.stages.refine import sam_masks
from porting.stages.refine.sam import Embedded, Masks, SamSettings
from porting.tables import OURS, TABLES
from porting.tables.rules import match_counts

_SHOWN = 4  # misfits in a message
# names of TinyViT's ImageNet classifier, which files of MobileSAM contain
_CLASSIFIER = ("image_encoder.head.", "image_encoder.norm_head.")
_HUGGING_FACE = ("vision_encoder.", "shared_image_embedding.")  # prefixes of names


class SegmentAnything:
    """`porting.stages.refine.sam.Sam` with a model of segment_anything.

    Args:
        model: the model with its weights.
        settings: model name, dtype and chunk size.
    """

    def __init__(self, model: Any, settings: SamSettings):
        self._model = model.to(sam_masks.device())
        self._spec = get_sam(settings.sam)
        self._settings = settings

    def embed(self, image: UInt8[np.ndarray, "h w 3"]) -> Embedded:
        """See `Sam`."""
        x = to_torch(preprocess(image[None], self._spec))
        with sam_masks.encoder_precision(self._settings.dtype):
            features = self._model.image_encoder(x.to(self._model.device)).float()
        return Embedded((features,), (image.shape[0], image.shape[1]))

    def stored(self, values: Float16[np.ndarray, "g g d"], size: tuple[int, int]) -> Embedded:
        """See `Sam`."""
        if self._settings.train_mode:
            raise ValueError(
                "stored embeddings are made with the batch norm's own statistics, train_mode is"
                " with the image's: run the image encoder instead (embeddings=False)."
            )
        decoder = self._spec.decoder
        return sam_masks.from_stored(values, size, decoder.grid, decoder.dim)

    def masks(self, embedded: Embedded, points: Int[np.ndarray, "n p 2"]) -> Masks:
        """See `Sam`."""
        prompts, decoder = self._model.prompt_encoder, self._model.mask_decoder

        def decode(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            inside = torch.ones(points.shape[:2], dtype=torch.int, device=points.device)
            sparse, dense = prompts(points=(points, inside), boxes=None, masks=None)
            return decoder(
                image_embeddings=embedded.features[0],
                image_pe=prompts.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )

        return sam_masks.best_masks(
            decode,
            points,
            embedded.size,
            scale=prompt_scale(embedded.size, self._spec.image),
            resize=sam_masks.unpadding(self._spec.image, embedded.size),
            chunk=self._settings.chunk,
        )


def load(settings: SamSettings) -> SegmentAnything:
    """See `porting.stages.refine.sam.load`."""
    get_sam(settings.sam)  # raises for an unknown name
    model = reference.build_sam(settings.sam)
    if settings.train_mode and not isinstance(model.image_encoder, reference.TinyViT):
        raise ValueError(
            f"train_mode is about batch norm, which {settings.sam} has not; set it to False."
        )
    state, provenance = open_checkpoint(_source(settings))
    try:
        reference.load_tensors(model, state)
    except RuntimeError:  # its message lists every name of both sides
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        raise ValueError(_misfit(settings.sam, wanted, state, provenance)) from None
    if settings.train_mode:
        _use_own_statistics(model.image_encoder)
    return SegmentAnything(model, settings)


def identify(settings: SamSettings) -> dict[str, Any]:
    """Name and hash of the weights."""
    _, provenance = open_checkpoint(_source(settings))
    weights = settings.weights if provenance.url or provenance.package else provenance.file
    return {"weights": weights, "sha256": provenance.sha256}


def _source(settings: SamSettings) -> str:
    """The weights as a source that `porting.files.locate` accepts."""
    if not settings.revision:
        return settings.weights
    if not settings.weights.startswith(HUB):
        raise ValueError(
            f"revision is {settings.revision!r}, and {settings.weights} not on the hub; leave it."
        )
    return f"{settings.weights}@{settings.revision}"


def _misfit(
    sam: str,
    wanted: Mapping[str, tuple[int, ...]],
    state: dict[str, np.ndarray],
    provenance: Provenance,
) -> str:
    """Error message for a file that does not fit a SAM: what it is, and what to do."""
    what, advice = _diagnose(sam, state, provenance)
    common = [name for name in state if name in wanted]
    misfits = [
        *(
            f"{name} has shape {state[name].shape}, not {wanted[name]}"
            for name in common
            if state[name].shape != wanted[name]
        ),
        *(f"{name} is missing" for name in wanted if name not in state),
        *(f"{name} is not of the model" for name in state if name not in wanted),
    ]
    return (
        f"{provenance.file} is {what}; wanted is a whole {sam}: {advice}."
        f" {len(misfits)} misfits, such as: {'; '.join(misfits[:_SHOWN])}."
    )


def _diagnose(sam: str, state: dict[str, np.ndarray], provenance: Provenance) -> tuple[str, str]:
    """What a file is, and what to do about it."""
    other = f"give the file of its authors ({get_sam(sam).source})"
    if provenance.format.startswith(OURS.name):
        return "a folder of this project's weights, for JAX", other
    if any(name.startswith(_HUGGING_FACE) for name in state):
        return "a SAM of transformers", f"set backend to 'transformers', or {other}"
    shapes = {n: array.shape for n, array in state.items() if not n.startswith(_CLASSIFIER)}
    for name in SAMS:
        if shapes == _shapes(name):
            return f"a {name}", f"set sam to {name!r}, or {other}"
    counts = {name: match_counts(list(state), table.rules) for name, table in TABLES.items()}
    families = [name for name, (used, unmatched) in counts.items() if used and not unmatched]
    if not families:
        return "of no kind that is known here", other
    # tables of whole files also match parts, but have more rules
    family = min(families, key=lambda name: len(TABLES[name].rules))
    if family == "sam_decoder":
        return "SAM's prompt encoder and mask decoder, without an image encoder", other
    return f"of family {family}", other


def _shapes(sam: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a SAM's tensors, without allocating them."""
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in reference.build_sam(sam).state_dict().items()}


def _use_own_statistics(encoder: nn.Module) -> None:
    """Makes every batch norm use the statistics of its input, and store none."""
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = None
