"""Panels of generated images in a joint run.

Image, the teacher's label, components with points, SAM's masks, the refined label, and the
student's prediction; without SAM, image, label and prediction. The steps are those of a training
step, on the images as they are, neither flipped nor jittered.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from clouds_jax.constants import IGNORE
from clouds_jax.data import records
from clouds_jax.data.classes import LabelSpace
from clouds_jax.data.embeddings import Embeddings
from clouds_jax.data.generated import fit
from clouds_jax.nn.sam.decoder import prompt_scale
from clouds_jax.selftrain import panels, refine_device, refine_host
from clouds_jax.selftrain.labels import FromRecords, FromSam, LabelSource
from clouds_jax.training.state import TrainState
from clouds_jax.visual import labels as visualise

_CHUNK = 8  # prompts decoded at once


@dataclasses.dataclass(frozen=True)
class View:
    """The images to draw.

    Attributes:
        ref: "name/split" of the images.
        size: (h, w) to which images are fitted, as in training.
        space: label space of the model.
        count: number of images, evenly spaced.
    """

    ref: str
    size: tuple[int, int]
    space: LabelSpace
    count: int


def draw(
    view: View,
    source: LabelSource,
    graphdef: nnx.GraphDef,
    state: TrainState,
    shards: pathlib.Path,
) -> visualise.Drawing:
    """A row per image.

    Args:
        view: images to draw.
        source: label source of the run.
        graphdef: structure of the run's model.
        state: state of the run, with a teacher.
        shards: root of all shards.
    """
    examples = records.open_ref(view.ref, shards)
    steps = _steps(view, source, graphdef, state, shards)
    rows, captions, seen = [], [], set[int]()
    count = min(view.count, len(examples))
    for index in np.linspace(0, len(examples) - 1, count, dtype=int).tolist():
        example = examples[index]
        assert example.image is not None
        image = fit(example.image, view.size)
        teacher, student = map(np.asarray, _predict_both(graphdef, state, image[None]))
        row, caption, label = steps(index, example.key, image, teacher[0])
        known = label != IGNORE
        agrees = 100 * (student[0] == label)[known].mean() if known.any() else 0
        captions.append(f"{caption}; the student agrees with {agrees:.1f} % of the label")
        rows.append([*row, visualise.overlay(image, student[0], view.space)])
        seen |= {*np.unique(label).tolist(), *np.unique(student).tolist()}
    titles = panels.TITLES if isinstance(source, FromSam) else ("image", "label")
    return panels.table(rows, (*titles, "student"), captions, seen, view.space)


# (index, key, image, teacher's label) -> pictures, caption, label
_Steps = Callable[[int, str, np.ndarray, np.ndarray], tuple[list, str, np.ndarray]]


def _steps(
    view: View,
    source: LabelSource,
    graphdef: nnx.GraphDef,
    state: TrainState,
    shards: pathlib.Path,
) -> _Steps:
    """Returns the function that draws how one image gets its label."""
    space, size = view.space, view.size

    def plain(key: str, image: np.ndarray, label: np.ndarray) -> tuple[list, str, np.ndarray]:
        return [image, visualise.overlay(image, label, space)], key, label

    if isinstance(source, FromRecords):
        name, split = records.parse_ref(view.ref)
        stored = records.open_ref(f"{records.map_name(name, source.map)}/{split}", shards)
        field = source.map.partition("-")[0]
        return lambda i, key, image, _: plain(key, image, fit(getattr(stored[i], field), size))
    if not isinstance(source, FromSam):
        return lambda _, key, image, teacher: plain(key, image, teacher)
    embeddings = Embeddings(shards, view.ref, source.sam, size) if source.stored else None

    def refined(index: int, key: str, image: np.ndarray, teacher: np.ndarray):
        if embeddings is not None:
            embedding = jnp.asarray(embeddings[index].values[0], jnp.float32)
        else:
            embedding = _embed(graphdef, source, state, image[None])[0]
        prompt = functools.partial(_prompt, graphdef, state, embedding, size=size)
        bits = refine_host.draws(0, index, teacher.shape, source.rules)
        refinement = refine_host.refine_label(
            teacher, bits, prompt, rules=source.rules, classes=len(space)
        )
        return *panels.steps(key, image, teacher, refinement, space), refinement.label

    return refined


@functools.partial(jax.jit, static_argnums=0)
def _predict_both(
    graphdef: nnx.GraphDef, state: TrainState, image: UInt8[Array, "1 h w 3"]
) -> tuple[UInt8[Array, "1 h w"], UInt8[Array, "1 h w"]]:
    """Class maps of teacher and student."""
    model = nnx.merge(graphdef, state.params, state.frozen)
    features = model.encode(image)
    head, _, fixed = nnx.split(model.head, nnx.Param, ...)
    assert state.teacher is not None

    def class_map(params: Any) -> UInt8[Array, "1 h w"]:
        own = nnx.merge(head, params["head"], fixed)
        scores = own.scores(own(features, all_outputs=False), image.shape[1:3])
        return scores.argmax(-1).astype(jnp.uint8)

    return class_map(state.teacher), class_map(state.params)


def _prompt(
    graphdef: nnx.GraphDef, state: TrainState, embedding: Array, points: Int[np.ndarray, "n p 2"],
    *, size: tuple[int, int],
) -> Bool[np.ndarray, "n h w"]:  # fmt: skip
    """SAM's best mask for each prompt, in chunks of one size, so that it is compiled once."""
    spare = -len(points) % _CHUNK
    padded = np.concatenate([points, np.zeros((spare, *points.shape[1:]), points.dtype)])
    masks = [
        np.asarray(_masks(graphdef, state, embedding, padded[i : i + _CHUNK], size))
        for i in range(0, len(padded), _CHUNK)
    ]
    return np.concatenate(masks)[: len(points)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _embed(
    graphdef: nnx.GraphDef, source: FromSam, state: TrainState, image: Array
) -> Float[Array, "1 g g d"]:  # fmt: skip
    return source.embed(nnx.merge(graphdef, state.params, state.frozen).sam, image)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _masks(
    graphdef: nnx.GraphDef, state: TrainState, embedding: Array, points: Array,
    size: tuple[int, int],
) -> Bool[Array, "n h w"]:  # fmt: skip
    sam = nnx.merge(graphdef, state.params, state.frozen).sam
    scale = jnp.asarray(prompt_scale(size, sam.image), jnp.float32)
    scaled = points.astype(jnp.float32) * scale[None, None]
    return refine_device.best_masks(
        sam, embedding, scaled, jnp.ones(points.shape[:2], jnp.int32), size
    )
