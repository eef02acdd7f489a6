"""The provider `diffusers`: images of any text-to-image pipeline of diffusers.

The noise of image i depends on (seed, i, attempt) alone, drawn on the CPU by its own generator, so
that every part of a set can be generated separately. On a CPU the images do not depend on the batch
size either. A GPU may choose other kernels for another batch size, whose last bits differ and can
change a pixel by one level; with the same batch size the bytes are the same.
"""

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from clouds_jax import provenance
from porting.stages.images import pipelines, retries
from porting.stages.images.provider import GeneratedImage
from porting.stages.images.retries import Request

_LISTED = {
    "scheduler": ("", "euler"),
    "dtype": ("float16", "bfloat16", "float32"),
    "offload": ("", "model", "sequential"),
}


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """A pipeline and its settings; the fields up to `size` are `config.generate.diffusers`.

    Attributes:
        model: folder, or name on the Hugging Face hub.
        revision: branch, tag or commit on the hub.
        variant: variant of the weight files, such as "fp16".
        scheduler: "euler" (its flow-matching form for such models), or "" for the model's own.
        steps: number of denoising steps.
        guidance: scale of classifier-free guidance.
        negative: negative prompt, or "".
        dtype: dtype of the weights on a GPU; on a CPU they are float32.
        batch: images per batch.
        offload: "model" or "sequential" to offload weights to host memory, or "".
        attention_slicing: compute attention in slices: slower, less memory.
        size: (h, w) of the images.
        prompts: all prompts; image i has the prompt i modulo their number.
        count: number of images.
        seed: seed of the noise.
        notes: see `Provider`.
    """

    model: str
    revision: str
    variant: str
    scheduler: str
    steps: int
    guidance: float
    negative: str
    dtype: str
    batch: int
    offload: str
    attention_slicing: bool
    size: tuple[int, int]
    prompts: tuple[str, ...]
    count: int
    seed: int
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        for key, allowed in _LISTED.items():
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"config.generate.diffusers.{key} is {getattr(self, key)!r}; it must be one of:"
                    f" {', '.join(map(repr, allowed))}."
                )
        for key in ("steps", "batch"):
            if getattr(self, key) < 1:
                raise ValueError(
                    f"config.generate.diffusers.{key} is {getattr(self, key)}; it must be >= 1."
                )
        if self.count < 1:
            raise ValueError(f"config.generate.count is {self.count}; it must be >= 1.")

    def describe(self) -> dict[str, Any]:
        """All that the images depend on besides the prompts."""
        keys = ("scheduler", "steps", "guidance", "negative", "dtype", "variant", "size", "seed")
        return {
            "provider": "diffusers",
            "model": self.model,
            "revision": self._identity,
            **{key: getattr(self, key) for key in keys},
            "versions": _versions(),
        }

    def inputs(self) -> dict[str, str]:
        """SHA-256 of the prompts."""
        return {"prompts": hashlib.sha256("\n".join(self.prompts).encode()).hexdigest()}

    def check(self) -> None:
        """Does nothing: there is nothing slow to check before the model is loaded."""

    def load(self) -> Callable[[Sequence[int]], Iterator[GeneratedImage]]:
        """Loads the pipeline.

        Returns:
            A function from indices to their images.

        Raises:
            OSError: its files are missing or damaged.
            ValueError: it is no text-to-image pipeline, or generates no images of this size.
        """
        pipe = pipelines.load(
            self.model,
            revision=self._identity,
            variant=self.variant,
            dtype=self.dtype,
            scheduler=self.scheduler,
            offload=self.offload,
            attention_slicing=self.attention_slicing,
        )
        self._check(pipe)
        config = pipe.scheduler.config
        origin = {
            **self.describe(),
            "pipeline": type(pipe).__name__,
            "scheduler": type(pipe.scheduler).__name__,
            "prediction_type": config.get("prediction_type", "flow"),
        }
        kwargs: dict[str, Any] = {"negative_prompt": self.negative} if self.negative else {}

        def draw(requests: Sequence[Request]) -> list[Any]:
            noise = [torch.Generator("cpu").manual_seed(r.noise_seed) for r in requests]
            negative = {key: [value] * len(requests) for key, value in kwargs.items()}
            with torch.inference_mode():
                output = pipe(
                    prompt=[r.prompt for r in requests],
                    height=self.size[0],
                    width=self.size[1],
                    num_inference_steps=self.steps,
                    guidance_scale=self.guidance,
                    generator=noise,
                    output_type="np",
                    **negative,
                )
            unsafe = getattr(output, "nsfw_content_detected", None) or [False] * len(requests)
            return [
                retries.judge(np.asarray(pixels, np.float32), unsafe=bool(flag))
                for pixels, flag in zip(output.images, unsafe, strict=True)
            ]

        def generate(indices: Sequence[int]) -> Iterator[GeneratedImage]:
            drawn = retries.draw_all(draw, indices, self.prompts, seed=self.seed, batch=self.batch)
            for request, image, counts in drawn:
                truncated = int(pipelines.is_truncated(pipe, request.prompt))
                yield GeneratedImage(
                    image,
                    origin | dataclasses.asdict(request),
                    counts | {"truncated": truncated},
                )

        return generate

    def _check(self, pipe: Any) -> None:
        """Raises for settings that the loaded pipeline does not support."""
        if self.negative and "negative_prompt" not in inspect.signature(pipe.__call__).parameters:
            raise ValueError(
                f"{type(pipe).__name__} takes no negative prompt; set"
                " config.generate.diffusers.negative to ''."
            )
        factor = getattr(pipe, "vae_scale_factor", 8)
        if self.size[0] % factor or self.size[1] % factor:
            raise ValueError(
                f"config.generate.diffusers.size is {self.size}; {self.model} makes images whose"
                f" height and width are multiples of {factor}."
            )

    def memory(self) -> dict[str, float]:
        """Peak GPU memory in GiB; empty without a GPU."""
        if not torch.cuda.is_available():
            return {}
        return {"gpu": torch.cuda.max_memory_allocated() / 2**30}

    @functools.cached_property
    def _identity(self) -> str:
        return pipelines.identify(self.model, self.revision)


def _versions() -> dict[str, str]:
    return provenance.versions(["torch", "diffusers", "transformers"])
