"""What a joint run makes of some generated images, as pictures.

Image, the teacher's label, components with points, SAM's masks, the refined label, and what the
student says; without SAM, image, label and student. The steps are those of a training step, on the
images as they are, neither flipped nor jittered.
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
from clouds_jax.selftrain.joint import SelfTraining
from clouds_jax.training.state import TrainState
from clouds_jax.visual import labels as visualise

_CHUNK = 8  # prompts decoded at once


@dataclasses.dataclass(frozen=True)
class View:
    """What is looked at.

    Attributes:
        ref: "name/split" of the images.
        size: (h, w) to which they are fitted, as for the training.
        space: of the labels.
        map: which stored labels, where the run learns those: "pseudo" or "refined".
        sam: whose stored embeddings; "": none are.
        count: of images, evenly spaced.
    """

    ref: str
    size: tuple[int, int]
    space: LabelSpace
    map: str
    sam: str
    count: int


def draw(
    view: View,
    settings: SelfTraining,
    graphdef: nnx.GraphDef,
    state: TrainState,
    shards: pathlib.Path,
) -> visualise.Drawing:
    """A row per image.

    Args:
        view: what to look at.
        settings: of the run.
        graphdef: of its model.
        state: with a teacher.
        shards: root of all shards.
    """
    ref, size, space = view.ref, view.size, view.space
    examples = records.open_ref(ref, shards)
    stored = None
    if settings.labels == "stored":
        name, split = records.parse_ref(ref)
        stored = records.open_ref(f"{records.map_name(name, view.map)}/{split}", shards)
    embeddings = None
    if view.sam:
        embeddings = Embeddings(shards, ref, view.sam, size)
    rows, captions, seen = [], [], set[int]()
    for index in np.linspace(
        0, len(examples) - 1, min(view.count, len(examples)), dtype=int
    ).tolist():
        example = examples[index]
        assert example.image is not None
        image = fit(example.image, size)
        teacher, student = map(np.asarray, _look(graphdef, state, image[None]))
        if settings.labels == "online":
            if embeddings is not None:
                embedding = jnp.asarray(embeddings[index].values[0], jnp.float32)
            else:
                embedding = _embed(graphdef, settings.embed, state, image[None])[0]
            ask = functools.partial(_ask, graphdef, state, embedding, size=size)
            found = _refine(teacher[0], index, settings, len(space), ask)
            row, caption = panels.steps(example.key, image, teacher[0], found, space)
            label = found.label
        else:
            label = teacher[0]
            if stored is not None:
                one = getattr(stored[index], view.map.partition("-")[0])
                label = fit(one, size)
            row = [image, visualise.overlay(image, label, space)]
            caption = example.key
        known = label != IGNORE
        agrees = 100 * (student[0] == label)[known].mean() if known.any() else 0
        captions.append(f"{caption}; the student agrees with {agrees:.1f} % of the label")
        rows.append([*row, visualise.overlay(image, student[0], space)])
        seen |= {*np.unique(label).tolist(), *np.unique(student).tolist()}
    titles = panels.TITLES if settings.labels == "online" else ("image", "label")
    return panels.table(rows, (*titles, "student"), captions, seen, space)


@functools.partial(jax.jit, static_argnums=0)
def _look(
    graphdef: nnx.GraphDef, state: TrainState, image: UInt8[Array, "1 h w 3"]
) -> tuple[UInt8[Array, "1 h w"], UInt8[Array, "1 h w"]]:
    """What teacher and student see."""
    model = nnx.merge(graphdef, state.params, state.frozen)
    features = model.encode(image)
    head, _, fixed = nnx.split(model.head, nnx.Param, ...)
    assert state.teacher is not None

    def labels(params: Any) -> UInt8[Array, "1 h w"]:
        one = nnx.merge(head, params["head"], fixed)
        scores = one.scores(one(features, all_outputs=False), image.shape[1:3])
        return scores.argmax(-1).astype(jnp.uint8)

    return labels(state.teacher), labels(state.params)


def _refine(
    label: refine_host.Label, index: int, settings: SelfTraining, classes: int, ask: Callable
) -> refine_host.Refinement:
    rules = settings.rules
    bits = refine_host.draws(0, index, label.shape, rules)
    return refine_host.refine_label(label, bits, ask, rules=rules, classes=classes)


def _ask(
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
    graphdef: nnx.GraphDef, embed: Callable, state: TrainState, image: Array
) -> Float[Array, "1 g g d"]:  # fmt: skip
    return embed(nnx.merge(graphdef, state.params, state.frozen).sam, image)


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
