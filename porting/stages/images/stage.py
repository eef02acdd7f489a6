"""The generate stage: writes `generated/train` with a diffusion model, or from photos."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clouds_jax.data import records
from clouds_jax.data.codecs import get_codec
from clouds_jax.data.generated import fit
from clouds_jax.stages import shard_set
from clouds_jax.stages.memory import host_memory
from porting.stages.images.diffusion import Diffusion
from porting.stages.images.photos import Photos
from porting.stages.images.provider import Provider
from porting.stages.prompts.prompt_file import read_prompts

PROVIDERS = ("diffusers", "folder")


def get_provider(config: Any, *, seed: int, prompts: Path) -> Provider:
    """The provider that `config.generate` names.

    Args:
        config: `config.generate`.
        seed: seed of the run.
        prompts: file of prompts, where the config names none.

    Raises:
        ValueError: an unknown provider, or an impossible setting.
        OSError: prompts or photos are missing.
    """
    if config.provider == "folder":
        return Photos(config.folder.path, count=config.count)
    if config.provider != "diffusers":
        raise ValueError(
            f"config.generate.provider is {config.provider!r}; allowed are: {', '.join(PROVIDERS)}."
        )
    return Diffusion(
        **config.diffusers.to_dict(),
        prompts=tuple(read_prompts(Path(config.prompts) if config.prompts else prompts)),
        count=config.count,
        seed=seed,
    )


@dataclasses.dataclass(frozen=True)
class Generate:
    """The generate stage.

    Attributes:
        shards: root folder of all shards.
        name: name of the set; the shards are "name/train".
        provider: source of the images.
        size: (h, w) of the stored images; others are scaled to cover it and cropped.
        count: number of shards.
        codec: codec of the stored images.
    """

    shards: Path
    name: str
    provider: Provider
    size: tuple[int, int]
    count: int
    codec: str

    def __post_init__(self):
        get_codec(self.codec)  # raises for an unknown one

    @property
    def folder(self) -> shard_set.Folder:
        """The folder of the shards."""
        return self._folder

    @functools.cached_property
    def _folder(self) -> shard_set.Folder:
        return shard_set.Folder(
            self.shards,
            f"{self.name}/train",
            stage="generate",
            parameters={
                **self.provider.describe(),
                "size": list(self.size),
                "codec": self.codec,
            },
            inputs=self.provider.inputs(),
            examples=self.provider.count,
            shards=self.count,
        )

    def load(self) -> Callable[[int], Iterator[shard_set.Record]]:
        """Loads the model; returns a function from a shard's number to its records."""
        if len(self.folder.missing()) == self.folder.shards:
            self.provider.check()
        generate = self.provider.load()

        def records_of(shard: int) -> Iterator[shard_set.Record]:
            indices = self.folder.indices(shard)
            for index, generated in zip(indices, generate(indices), strict=True):
                key, image = f"{self.name}/{index:06d}", fit(generated.image, self.size)
                example = records.Example(key, image, origin=dict(generated.origin))
                yield records.encode(example, self.codec), generated.counts

        return records_of

    @property
    def contact_sheet(self) -> Path:
        """Path of the contact sheet."""
        return self.folder.folder / f"{self.folder.split}.contact_sheet.png"

    def memory(self) -> Mapping[str, float]:
        """Peak memory so far in GiB, by device."""
        return {"host": host_memory(), **self.provider.memory()}
