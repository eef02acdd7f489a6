"""Seeds and prompts of generated images, and retries for blank images.

A safety checker replaces images that it rejects by black ones, and overflows end as NaN, which is
black too. Such images are useless for training, so they are generated again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from clouds_jax.data.codecs import Image

SAME_PROMPT = 3  # attempts with an image's own prompt; later attempts use the prompts after it
MAX_ATTEMPTS = 10  # per image

# Bounds of blank images, in levels 0..255. Photographs of a dark night have a mean above 10; empty
# skies and dense fog have standard deviations above 4.
_MAX_DARK_MEAN = 3.0
_MAX_EVEN_STD = 2.0  # in each channel

REASONS = {
    "unsafe": "the pipeline's safety checker refused it: change the prompt",
    "nan": "its numbers overflowed: set config.generate.diffusers.dtype=bfloat16",
    "black": "it is black: a safety checker or, in float16, an overflow; try bfloat16",
    "even": "it shows one colour: are these the weights of a trained model?",
}


class BlankImage(ValueError):
    """All attempts at an image failed."""


@dataclass(frozen=True)
class Request:
    """One attempt at one image.

    Attributes:
        index: index of the image in the whole set.
        attempt: number of the attempt, from 1.
        prompt: text prompt.
        prompt_index: index of the prompt in the list of prompts.
        noise_seed: 64-bit seed of the image's noise.
    """

    index: int
    attempt: int
    prompt: str
    prompt_index: int
    noise_seed: int


Draw = Callable[[Sequence[Request]], Sequence[Image | str]]  # an image, or one of REASONS


def request(index: int, attempt: int, prompts: Sequence[str], seed: int) -> Request:
    """An attempt at an image, determined by the arguments.

    Image i has the prompt i modulo their number.
    """
    place = (index + max(0, attempt - SAME_PROMPT)) % len(prompts)
    (noise,) = np.random.SeedSequence((seed, index, attempt)).generate_state(1, np.uint64)
    return Request(index, attempt, prompts[place], place, int(noise))


def judge(pixels: Float[np.ndarray, "h w 3"], *, unsafe: bool = False) -> Image | str:
    """The 8-bit image of pixels in [0, 1], or a key of `REASONS` if it is blank."""
    if unsafe:
        return "unsafe"
    if not np.isfinite(pixels).all():
        return "nan"
    image = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    if image.mean() <= _MAX_DARK_MEAN:
        return "black"
    if image.std(axis=(0, 1)).max() <= _MAX_EVEN_STD:
        return "even"
    return image


def draw_all(
    draw: Draw, indices: Sequence[int], prompts: Sequence[str], *, seed: int, batch: int
) -> Iterator[tuple[Request, Image, dict[str, int]]]:
    """Draws images in batches, and blank ones again.

    Args:
        draw: generates the images of some requests.
        indices: indices of the images.
        prompts: prompts of the whole set.
        seed: seed of the run.
        batch: largest number of images at once.

    Yields:
        The successful request, its image, and counts of the failed attempts before it.

    Raises:
        BlankImage: `MAX_ATTEMPTS` attempts at an image failed.
    """
    for start in range(0, len(indices), batch):
        pending = [request(i, 1, prompts, seed) for i in indices[start : start + batch]]
        blanks: dict[int, Counter[str]] = {r.index: Counter() for r in pending}
        done: dict[int, tuple[Request, Image]] = {}
        while pending:
            retried = []
            for current, result in zip(pending, draw(pending), strict=True):
                if not isinstance(result, str):
                    done[current.index] = current, result
                    continue
                blanks[current.index][result] += 1
                if current.attempt == MAX_ATTEMPTS:
                    raise BlankImage(_failure(current, blanks[current.index]))
                retried.append(request(current.index, current.attempt + 1, prompts, seed))
            pending = retried
        for index, reasons in blanks.items():
            final, image = done[index]
            yield final, image, _counts(final, reasons)


def _counts(final: Request, blanks: Counter[str]) -> dict[str, int]:
    return {
        "remade": final.attempt - 1,
        "other_prompt": int(final.attempt > SAME_PROMPT),
        **{f"blank_{reason}": blanks[reason] for reason in REASONS},
    }


def _failure(last: Request, blanks: Counter[str]) -> str:
    reasons = "".join(
        f"\n  {count} x {reason}: {REASONS[reason]}" for reason, count in blanks.most_common()
    )
    return (
        f"image {last.index} is blank after {MAX_ATTEMPTS} attempts with"
        f" {MAX_ATTEMPTS - SAME_PROMPT + 1} prompts, the last of them {last.prompt[:80]!r}:"
        f"{reasons}\nWhat was made before is kept."
    )
