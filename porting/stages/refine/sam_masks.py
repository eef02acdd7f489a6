"""From point prompts to masks at image size in PyTorch, for all backends."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float16, Int
from torch.nn import functional

from clouds_jax.nn.sam.decoder import input_size
from porting.stages.refine.sam import Embedded, Masks

# points (n, p, 2) on the encoder's input -> logits (n, 3, s, s) and predicted IoU (n, 3)
MaskDecoder = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Resize = Callable[[torch.Tensor], torch.Tensor]


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """No gradients, and on a GPU deterministic algorithms in full float32."""
    flags = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.inference_mode(), flags:
        yield


@contextlib.contextmanager
def encoder_precision(dtype: str) -> Iterator[None]:
    """`deterministic`, with matrix products in `dtype` on a GPU; norms stay float32."""
    kind = device().type
    half = kind == "cuda" and dtype != "float32"
    low = getattr(torch, dtype) if half else None
    with deterministic(), torch.autocast(kind, low, enabled=half):
        yield


def best_masks(
    decode: MaskDecoder,
    points: Int[np.ndarray, "n p 2"],
    size: tuple[int, int],
    *,
    scale: tuple[float, float],
    resize: Resize,
    chunk: int,
) -> Masks:
    """Decodes prompts in chunks; for each, the mask with the highest predicted IoU.

    Args:
        decode: the mask decoder, for points that all lie inside their object.
        points: (x, y) in pixels of the image.
        size: (h, w) of the image.
        scale: factors of (x, y) to pixels of the encoder's input.
        resize: logits (n, 1, s, s) -> logits at image size.
        chunk: prompts decoded at once.

    Source: SamPredictor.predict_torch with multimask_output=True. Here the best mask is chosen
        before resizing, so that two thirds of the logits are never resized.
    """
    # multiplied in float64, as apply_coords does
    scaled = torch.from_numpy((points * np.asarray(scale, np.float64)).astype(np.float32))
    masks = np.zeros((len(points), *size), bool)
    iou = np.zeros((len(points), 3), np.float32)
    chosen = np.zeros(len(points), np.int64)
    with deterministic():
        for start in range(0, len(points), chunk):
            part = slice(start, start + chunk)
            logits, predicted = decode(scaled[part].to(device()))
            index = predicted.argmax(1)
            logits = logits[torch.arange(len(index)), index][:, None]
            masks[part] = (resize(logits)[:, 0] > 0).cpu().numpy()
            iou[part] = predicted.cpu().numpy()
            chosen[part] = index.cpu().numpy()
    return Masks(masks, iou, chosen)


def unpadding(image: int, size: tuple[int, int]) -> Resize:
    """SAM's resizing of logits: to the encoder's input, without its padding, to the image.

    Args:
        image: side of the encoder's square input, in pixels.
        size: (h, w) of the image.

    Source: segment_anything's Sam.postprocess_masks.
    """
    h, w = input_size(size, image)

    def resize(logits: torch.Tensor) -> torch.Tensor:
        return resize_bilinear(resize_bilinear(logits, (image, image))[..., :h, :w], size)

    return resize


def resize_bilinear(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resizes logits (n, c, h, w) to `size` (h, w)."""
    return functional.interpolate(logits, size, mode="bilinear", align_corners=False)


def from_stored(
    values: Float16[np.ndarray, "g g d"], size: tuple[int, int], grid: int, dim: int
) -> Embedded:
    """A stored embedding, for a decoder that reads (grid, grid, dim).

    Raises:
        ValueError: it has another shape.
    """
    if values.shape != (grid, grid, dim):
        raise ValueError(
            f"a stored embedding has shape {values.shape}, this SAM reads {(grid, grid, dim)};"
            " was it made by another SAM? Make embeddings of this one with python -m"
            " clouds_jax.embed, or run the image encoder instead."
        )
    features = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None]
    return Embedded((features.contiguous().to(device()),), size)
