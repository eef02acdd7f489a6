"""Random keys of a model that is built inside a traced function."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Key


class _Cell:
    """A value that is read and set as that of an NNX variable."""

    def __init__(self, value: Any):
        self.value = value

    def __getitem__(self, index: Any) -> Any:
        return self.value

    def __setitem__(self, index: Any, value: Any) -> None:
        self.value = value


class _Stream:
    """The keys of an RngStream with this key, without its variables."""

    def __init__(self, key: Key[Array, ""]):
        self.key = _Cell(key)
        self.count = _Cell(np.uint32(0))

    def __call__(self) -> Key[Array, ""]:
        key = jax.random.fold_in(self.key[...], self.count[...])
        self.count[...] = self.count[...] + np.uint32(1)
        return key


class Keys(nnx.Rngs):
    """The keys of `nnx.Rngs(key)`, for parameters.

    Setting a variable inside a trace makes Flax ask for the sharding of a tracer; the error that
    answers is worded by searching all that was traced, which takes seconds for a large model.
    """

    def __init__(self, key: Key[Array, ""]):
        object.__setattr__(self, "params", _Stream(key))
