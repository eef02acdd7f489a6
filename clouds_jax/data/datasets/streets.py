"""Our own procedural streets: one dataset per appearance domain, `streets_{city}_{condition}`."""

import functools
from collections.abc import Sequence

from clouds_jax.data.datasets.spec import DatasetSpec, Source
from clouds_jax.streets import DOMAINS, render

SIZE = (512, 1024)
_COUNTS = {"train": 400, "val": 50}


def examples(
    name: str,
    raw: None,
    split: str,
    *,
    seed: int = 0,
    count: int | None = None,
) -> Sequence[Source]:
    """The scenes of one split of the domain; no scene belongs to two splits.

    Args:
        name: name of the domain.
        raw: unused; nothing is read.
        split: "train" or "val".
        seed: seed of the scenes.
        count: number of scenes; None: 400 for training, 50 for validation.
    """
    del raw
    stream = seed * len(_COUNTS) + list(_COUNTS).index(split)
    return [
        Source(
            f"{_name(name)}/{stream:03d}_{index:06d}",
            render=functools.partial(render, name, stream, index, SIZE),
        )
        for index in range(_COUNTS[split] if count is None else count)
    ]


def _name(domain: str) -> str:
    return f"streets_{domain.replace('-', '_')}"


SPECS = tuple(
    DatasetSpec(
        name=_name(domain),
        label_space="cityscapes19",
        splits=dict.fromkeys(_COUNTS),
        examples=functools.partial(examples, domain),
        generated=True,
        jitter_size=SIZE,
        homepage="drawn by this code",
        licence="that of this code",
    )
    for domain in DOMAINS
)
