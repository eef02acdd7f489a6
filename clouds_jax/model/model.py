"""A model with its weights: predictions, features, saving."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import UInt8
from PIL import Image

from clouds_jax import images
from clouds_jax.config.model import ModelConfig
from clouds_jax.evaluation import protocols
from clouds_jax.evaluation.protocols import Protocol
from clouds_jax.model import executables
from clouds_jax.model.prediction import Label, Prediction, Rgb, Scores
from clouds_jax.nn.clouds import STRIDE, Clouds
from clouds_jax.weights import save_weights

Picture = str | os.PathLike | Image.Image | UInt8[np.ndarray, "h w *c"]
Predict = Callable[[Rgb], tuple[Label, Scores | None]]


class Model:
    """An encoder and a head with their weights.

    Args:
        graphdef: structure of the module.
        state: the module's variables.
        config: encoder, head and classes of the model.
        about: origin of the weights, for reports; JSON values.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        state: Any,
        config: ModelConfig,
        about: Mapping[str, Any],
    ):
        self.graphdef, self.state, self.config, self.about = graphdef, state, config, dict(about)

    def __repr__(self) -> str:
        numbers = sum(leaf.size for leaf in jax.tree.leaves(self.state))
        return (
            f"Model(encoder={self.config.encoder!r}, head={type(self.config.head).__name__},"
            f" classes={len(self.config.space)} of {self.config.space.name}, {numbers:,} numbers)"
        )

    @functools.cached_property
    def module(self) -> Clouds:
        """The `nnx.Module`."""
        return nnx.merge(self.graphdef, self.state)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by id."""
        return self.config.space.names

    @overload
    def predict(self, image: Picture, *, protocol: str | Protocol = "native") -> Prediction: ...

    @overload
    def predict(
        self, image: Sequence[Picture], *, protocol: str | Protocol = "native"
    ) -> list[Prediction]: ...

    def predict(
        self, image: Any, *, protocol: str | Protocol = "native"
    ) -> Prediction | list[Prediction]:
        """Predicts the class of every pixel.

        Images of one size share a compiled program.

        Args:
            image: path, PIL image, or uint8 array [h, w, 3] (also [h, w] and [h, w, 4]); a list
                gives a list.
            protocol: preparation of the image: "native", "clouds", "slide", or a `Protocol`.

        Raises:
            FileNotFoundError, ValueError: the image cannot be read.
        """
        if isinstance(image, list | tuple):
            return [self.predict(item, protocol=protocol) for item in image]
        if isinstance(protocol, str):
            protocol = protocols.get_protocol(protocol)
        rgb = images.as_rgb(image)
        label, _ = self.predictor(protocol)(rgb)

        def scores() -> Scores:
            values = self.predictor(protocol, scores=True)(rgb)[1]
            assert values is not None
            return values

        return Prediction(rgb, label, self.config.space, scores)

    def predictor(self, protocol: Protocol, *, scores: bool = False) -> Predict:
        """Returns `predict(image) -> (class ids, class scores or None)`, at the image's own size.

        Args:
            protocol: preparation of the images.
            scores: also return float16 scores of all classes.
        """
        program = _program(self.graphdef, protocol, scores)

        def predict(image: Rgb) -> tuple[Label, Scores | None]:
            prepared = protocols.prepare_image(image, protocol)
            batch = jax.device_put(prepared[None])  # jnp.asarray would compile a copy
            return jax.device_get(program(self.state, batch, size=image.shape[:2]))

        return predict

    def features(self, image: Picture) -> dict[str, np.ndarray]:
        """The encoder's features of one image.

        Args:
            image: see `predict`.

        Returns:
            "res2" to "res5": float32 [h/4, w/4, c2] to [h/32, w/32, c5], sides rounded up, without
            the padding to a multiple of 32; and other outputs of the encoder, if any.
        """
        rgb = images.as_rgb(image)
        padded = [side + -side % STRIDE for side in rgb.shape[:2]]
        out = {}
        for name, values in _encode(self.graphdef, self.state, jnp.asarray(rgb[None])).items():
            values = np.asarray(values[0], np.float32)
            if values.ndim == 3:
                h, w = (
                    -(-side * n // full)
                    for side, n, full in zip(rgb.shape, values.shape, padded, strict=False)
                )
                values = values[:h, :w]
            out[name] = values
        return out

    def save(self, folder: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Writes a weights folder that `load` reads without a config.

        Args:
            folder: folder to create.
            overwrite: replace a weights folder that is already there.
        """
        tree = nnx.to_pure_dict(self.state)
        about = {k: v for k, v in self.about.items() if k != "model"}
        save_weights(
            Path(folder), tree, {**about, "model": self.config.as_json()}, overwrite=overwrite
        )


@functools.lru_cache(maxsize=8)
def _program(graphdef: nnx.GraphDef, protocol: Protocol, scores: bool) -> Callable:
    def program(state, image, *, size: tuple[int, int]):
        values = protocols.class_scores(nnx.merge(graphdef, state), image, protocol, size)
        label = jnp.argmax(values, axis=-1).astype(jnp.uint8)
        return label[0], values[0].astype(jnp.float16) if scores else None

    def jit(program: functools.partial) -> Callable:
        if not executables.covers(graphdef):
            return jax.jit(program)
        return executables.jit(program, (graphdef, protocol, scores, program.keywords))

    return protocols.compiled_per_shape(program, jit=jit)


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef, state, image):
    return nnx.merge(graphdef, state).encode(image)
