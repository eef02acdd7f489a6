"""From host batches to batches on the devices, copied ahead of the step."""

from collections.abc import Mapping
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from clouds_jax import sharding
from clouds_jax.typing import Batch, Generated

_ON_DEVICES = 2  # batches that wait on the devices


def on_devices(batches: grain.IterDataset, mesh: Mesh) -> grain.DatasetIterator[Batch]:
    """Batches on the devices.

    Args:
        batches: batches of this process: dicts of arrays, or (labelled, generated) pairs of them.
        mesh: mesh over whose devices each batch is split.
    """
    split = sharding.over_batch(mesh)

    def move(arrays: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        return {k: jax.make_array_from_process_local_data(split, v) for k, v in arrays.items()}

    def to_devices(arrays: Any) -> Batch:
        if isinstance(arrays, Mapping):
            return Batch(**move(arrays), generated=None)
        labelled, generated = arrays
        return Batch(**move(labelled), generated=Generated(**move(generated)))

    # One thread copies ahead, so that the copy hides behind the step before.
    ahead = grain.experimental.ThreadPrefetchIterDataset(
        batches.map(to_devices), prefetch_buffer_size=_ON_DEVICES
    )
    return iter(ahead)
