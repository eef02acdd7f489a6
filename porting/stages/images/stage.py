"""The stage that makes images: `generated/train` of a diffusion model, or of photos."""

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
        seed: of the run.
        prompts: file of prompts, where the config names none.

    Raises:
        ValueError: there is no such provider, or a setting of it is impossible.
        OSError: prompts or photos are not there.
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
    """The stage.

    Attributes:
        shards: root of all shards.
        name: of the set; the shards are "name/train".
        provider: makes the images.
        size: (h, w); larger or smaller images are scaled to cover it and cut.
        count: number of shards.
        codec: of the images in them.
    """

    shards: Path
    name: str
    provider: Provider
    size: tuple[int, int]
    count: int
    codec: str

    def __post_init__(self):
        get_codec(self.codec)  # raises for one that there is not

    @property
    def folder(self) -> shard_set.Folder:
        """Where the shards go."""
        return self._folder

    @functools.cached_property
    def _folder(self) -> shard_set.Folder:
        return shard_set.Folder(
            self.shards,
            f"{self.name}/train",
            stage="generate",
            parameters={
                **self.provider.describe(), "size": list(self.size), "codec": self.codec,
            },
            inputs=self.provider.inputs(),
            examples=self.provider.count,
            shards=self.count,
        )  # fmt: skip

    def load(self) -> Callable[[int], Iterator[shard_set.Record]]:
        """Loads the model."""
        if len(self.folder.missing()) == self.folder.shards:
            self.provider.check()
        draw = self.provider.load()

        def make(shard: int) -> Iterator[shard_set.Record]:
            indices = self.folder.indices(shard)
            for index, made in zip(indices, draw(indices), strict=True):
                example = records.Example(
                    f"{self.name}/{index:06d}", fit(made.image, self.size), origin=dict(made.origin)
                )
                yield records.encode(example, self.codec), made.numbers

        return make

    @property
    def contact_sheet(self) -> Path:
        """Where the picture of the first images is."""
        return self.folder.folder / f"{self.folder.split}.contact_sheet.png"

    def memory(self) -> Mapping[str, float]:
        """Peak memory in GiB."""
        return {"host": host_memory(), **self.provider.memory()}
