"""From prompts to masks at image size in PyTorch: what all backends share."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float16, Int
from torch.nn import functional

from clouds_jax.nn.sam.decoder import input_size
from porting.stages.refine.sam import Embedded, Masks

# points (1, n, p, 2) on the encoder's input -> logits (n, 3, s, s) and predicted IoU (n, 3)
Ask = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Resize = Callable[[torch.Tensor], torch.Tensor]


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """No gradients, and on a GPU the same algorithm every time, in full float32."""
    flags = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.inference_mode(), flags:
        yield


@contextlib.contextmanager
def encoding(dtype: str) -> Iterator[None]:
    """`exact`, with the products of an image encoder in `dtype` on a GPU; norms stay float32."""
    at = device()
    half = at.type == "cuda" and dtype != "float32"
    with exact(), torch.autocast(at.type, getattr(torch, dtype) if half else None, enabled=half):
        yield


def best(
    ask: Ask,
    points: Int[np.ndarray, "n p 2"],
    size: tuple[int, int],
    *,
    scale: tuple[float, float],
    resize: Resize,
    chunk: int,
) -> Masks:
    """Asks in chunks and keeps of each prompt the mask with the highest predicted IoU.

    Args:
        ask: the decoder, for points that all lie inside their object.
        points: (x, y) in pixels of the image.
        size: (h, w) of the image.
        scale: of (x, y) to pixels of the encoder's input.
        resize: logits (n, 1, s, s) -> at image size.
        chunk: prompts at once.

    Source: SamPredictor.predict_torch with multimask_output=True. Choosing comes first here, and
        so two thirds of the logits are never resized.
    """
    # multiplied in float64, as apply_coords does
    scaled = torch.from_numpy((points * np.asarray(scale, np.float64)).astype(np.float32))
    masks = np.zeros((len(points), *size), bool)
    iou = np.zeros((len(points), 3), np.float32)
    chosen = np.zeros(len(points), np.int64)
    with exact():
        for start in range(0, len(points), chunk):
            part = slice(start, start + chunk)
            logits, predicted = ask(scaled[part].to(device()))
            index = predicted.argmax(1)
            logits = logits[torch.arange(len(index)), index][:, None]
            masks[part] = (resize(logits)[:, 0] > 0).cpu().numpy()
            iou[part] = predicted.cpu().numpy()
            chosen[part] = index.cpu().numpy()
    return Masks(masks, iou, chosen)


def uncropped(image: int, size: tuple[int, int]) -> Resize:
    """The resizing of SAM's logits: to the encoder's input, the part that is image, the image.

    Args:
        image: pixels of the encoder's square input along each side.
        size: (h, w) of the image.

    Source: segment_anything's Sam.postprocess_masks.
    """
    h, w = input_size(size, image)

    def resize(logits: torch.Tensor) -> torch.Tensor:
        return resized(resized(logits, (image, image))[..., :h, :w], size)

    return resize


def resized(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinearly, as all of SAM's logits are."""
    return functional.interpolate(logits, size, mode="bilinear", align_corners=False)


def from_stored(
    values: Float16[np.ndarray, "g g d"], size: tuple[int, int], grid: int, dim: int
) -> Embedded:
    """A stored embedding for a decoder that reads (grid, grid, dim)."""
    if values.shape != (grid, grid, dim):
        raise ValueError(
            f"a stored embedding has shape {values.shape}, this SAM reads {(grid, grid, dim)};"
            " was it made by another SAM? Make embeddings of this one with python -m"
            " clouds_jax.embed, or run the image encoder instead."
        )
    features = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None]
    return Embedded((features.contiguous().to(device()),), size)
