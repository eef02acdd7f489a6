"""Seeds and prompts of generated images, and new attempts where an image came out blank.

A safety checker replaces what it refuses by black, and numbers that overflow end as NaN, which is
black too. Such images hold nothing to learn from, so they are drawn again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from clouds_jax.data.codecs import Image

SAME_PROMPT = 3  # attempts with an image's own prompt; later ones take those that follow it
MOST = 10  # attempts at one image

# In levels of 0..255: photographs of a dark night have a mean above 10, and empty skies or dense
# fog still vary by more than 4.
_DARK = 3.0  # mean, at most
_EVEN = 2.0  # standard deviation within each channel, at most

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
        index: of the image in the whole set.
        attempt: from 1.
        prompt: what to draw.
        prompt_index: its place in the list of prompts.
        noise_seed: of the generator of this image's noise, 64 bits.
    """

    index: int
    attempt: int
    prompt: str
    prompt_index: int
    noise_seed: int


Draw = Callable[[Sequence[Request]], Sequence[Image | str]]  # an image, or one of REASONS


def request(index: int, attempt: int, prompts: Sequence[str], seed: int) -> Request:
    """The attempt at an image, which depends on the arguments alone.

    Image i has prompt i modulo their number.
    """
    place = (index + max(0, attempt - SAME_PROMPT)) % len(prompts)
    (noise,) = np.random.SeedSequence((seed, index, attempt)).generate_state(1, np.uint64)
    return Request(index, attempt, prompts[place], place, int(noise))


def judge(pixels: Float[np.ndarray, "h w 3"], *, unsafe: bool = False) -> Image | str:
    """The 8-bit image of pixels in [0, 1], or why it is blank."""
    if unsafe:
        return "unsafe"
    if not np.isfinite(pixels).all():
        return "nan"
    image = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    if image.mean() <= _DARK:
        return "black"
    if image.std(axis=(0, 1)).max() <= _EVEN:
        return "even"
    return image


def drawn(
    draw: Draw, indices: Sequence[int], prompts: Sequence[str], *, seed: int, batch: int
) -> Iterator[tuple[Request, Image, dict[str, int]]]:
    """Draws images in batches, and the blank ones again.

    Args:
        draw: makes the images of some requests.
        indices: of the images.
        prompts: of the whole set.
        seed: of the run.
        batch: most images at once.

    Yields:
        The request that was answered, its image, and how often what was amiss before.

    Raises:
        BlankImage: `MOST` attempts at an image failed.
    """
    for start in range(0, len(indices), batch):
        waiting = [request(i, 1, prompts, seed) for i in indices[start : start + batch]]
        blanks: dict[int, Counter[str]] = {one.index: Counter() for one in waiting}
        done: dict[int, tuple[Request, Image]] = {}
        while waiting:
            again = []
            for asked, answer in zip(waiting, draw(waiting), strict=True):
                if not isinstance(answer, str):
                    done[asked.index] = asked, answer
                    continue
                blanks[asked.index][answer] += 1
                if asked.attempt == MOST:
                    raise BlankImage(_hopeless(asked, blanks[asked.index]))
                again.append(request(asked.index, asked.attempt + 1, prompts, seed))
            waiting = again
        for index, found in blanks.items():
            asked, image = done[index]
            yield asked, image, _numbers(asked, found)


def _numbers(asked: Request, blanks: Counter[str]) -> dict[str, int]:
    return {
        "remade": asked.attempt - 1,
        "other_prompt": int(asked.attempt > SAME_PROMPT),
        **{f"blank_{reason}": blanks[reason] for reason in REASONS},
    }


def _hopeless(asked: Request, blanks: Counter[str]) -> str:
    told = "".join(
        f"\n  {count} x {reason}: {REASONS[reason]}" for reason, count in blanks.most_common()
    )
    return (
        f"image {asked.index} is blank after {MOST} attempts with {MOST - SAME_PROMPT + 1} prompts,"
        f" the last of them {asked.prompt[:80]!r}:{told}\nWhat was made before is kept."
    )
