"""The class matrix: CLIP's text embeddings of the class names, in a file beside the weights."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Int
from tqdm import tqdm

from clouds_jax import images
from clouds_jax.data.classes import LabelSpace, get_space
from clouds_jax.nn import clip_text
from clouds_jax.text import class_names
from clouds_jax.weights import fill_module, load_weights

_NAMES_PER_CALL = 8  # of the text tower

Tokenize = Callable[[Sequence[str]], Int[np.ndarray, "n t"]]
Encode = Callable[[Int[np.ndarray, "n t"]], Float[np.ndarray, "n v"]]


@dataclasses.dataclass(frozen=True)
class ClassMatrix:
    """The weights of a text classifier.

    Attributes:
        matrix: one unit vector per name.
        class_of_row: class of the name of each row.
        logit_scale: natural logarithm of CLIP's factor for cosines.
    """

    matrix: Float[np.ndarray, "r v"]
    class_of_row: Int[np.ndarray, " r"]
    logit_scale: float


def class_embeddings(
    encode: Encode,
    tokenize: Tokenize,
    names: class_names.Names,
    *,
    templates: Sequence[str] = class_names.TEMPLATES,
    progress: bool = False,
) -> tuple[Float[np.ndarray, "r v"], Int[np.ndarray, " r"]]:
    """One unit vector per name, and the class that each name belongs to.

    Args:
        encode: function from ids to embeddings of any length.
        tokenize: function from texts to ids; the largest id ends a text.
        names: names of every class.
        templates: sentences with `{}` for the name.
        progress: draw a progress bar.

    Source: FC-CLIP's text classifier; synonyms stay apart, the classifier takes their maximum.
    """
    all_names = [name for synonyms in names for name in synonyms]
    ids = tokenize([template.format(name) for name in all_names for template in templates])
    ids = ids[:, : ids.argmax(-1).max() + 1]  # ids after the last end mark change nothing
    count = len(templates) * _NAMES_PER_CALL
    rows = []
    with tqdm(total=len(all_names), desc="names", unit="name", disable=not progress) as bar:
        for first in range(0, len(ids), count):
            chunk = ids[first : first + count]
            padded = np.resize(chunk, (count, ids.shape[1]))  # one shape, hence one compilation
            embedded = np.asarray(encode(padded), np.float32)[: len(chunk)]
            embedded = _unit(embedded).reshape(-1, len(templates), embedded.shape[-1])
            rows.append(_unit(embedded.mean(1)))
            bar.update(len(rows[-1]))
    return np.concatenate(rows), np.asarray(class_names.class_of_row(names), np.int32)


def load_tower(
    folder: str | os.PathLike, *, quick_gelu: bool | None = None
) -> tuple[Encode, clip_text.TextSize, Mapping[str, Any]]:
    """The text tower of a weights folder: its function, its size, its weights.

    Args:
        folder: weights folder of `python -m porting convert`.
        quick_gelu: activation of the tower; None: the one that the conversion recorded.

    Raises:
        ValueError: the folder holds no text tower, or does not say its activation.
    """
    tree, provenance = load_weights(folder, ("text",))
    if not tree:
        raise ValueError(
            f"{folder} holds no text tower; convert a file that does with `python -m porting"
            " convert open_clip_text FILE --output FOLDER`, name that folder with --weights and"
            f" {folder} with --output."
        )
    tree = tree["text"]
    if quick_gelu is None:
        target = provenance.get("target", {}).get("text", {})
        if "quick_gelu" not in target:
            raise ValueError(
                f"{folder} does not say which activation its text tower has; say it with"
                " --activation (OpenAI's weights: quick_gelu, LAION's: gelu)."
            )
        quick_gelu = bool(target["quick_gelu"])
    size = clip_text.size_of(tree, quick_gelu=quick_gelu)
    graphdef, state = fill_module(
        lambda rngs: clip_text.TextTower(size, rngs=rngs),
        tree,
        where=f"the text tower of {folder}",
    )

    @jax.jit
    def run(state, ids):
        with jax.default_matmul_precision("highest"):
            return nnx.merge(graphdef, state)(ids)

    return lambda ids: np.asarray(run(state, ids)), size, tree


def make_class_matrix(
    folder: Path,
    space: str,
    *,
    output: Path,
    quick_gelu: bool | None = None,
    vocabulary: Path | None = None,
    progress: bool = False,
) -> tuple[Path, bool]:
    """Writes the class matrix of a label space; returns its file and whether it is new.

    Args:
        folder: weights folder with a text tower.
        space: name of the label space.
        output: folder to write to.
        quick_gelu: activation of the tower; None: the one that the conversion recorded.
        vocabulary: file of CLIP's merges; None: that of open_clip_torch.
        progress: draw a progress bar.
    """
    names = class_names.class_names(get_space(space))
    encode, size, tree = load_tower(folder, quick_gelu=quick_gelu)
    description = {
        "space": space,
        "names": names,
        "templates": class_names.TEMPLATES,
        "quick_gelu": size.quick_gelu,
        "text_sha256": _hash(tree),
    }
    text = json.dumps(description, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = output / f"class_embeddings-{space}-{digest}.npz"
    if path.exists():
        return path, False
    from clouds_jax.text.tokenizer import Tokenizer  # ftfy and regex are slow to import

    tokenize = Tokenizer(vocabulary, context=size.context)
    matrix, rows = class_embeddings(encode, tokenize, names, progress=progress)
    images.write_npz(
        path,
        matrix=matrix,
        class_of_row=rows,
        logit_scale=np.float32(tree["logit_scale"]),
        description=np.asarray(text),
    )
    return path, True


def load_class_matrix(folder: str | os.PathLike, space: LabelSpace) -> ClassMatrix:
    """The class matrix beside the weights in `folder`, of today's names and templates.

    Raises:
        FileNotFoundError: there is none, or only of other names or templates.
        ValueError: there are several, from different text towers.
    """
    wanted = json.loads(json.dumps([class_names.class_names(space), class_names.TEMPLATES]))
    matches, others = [], []
    for path in sorted(Path(folder).glob(f"class_embeddings-{space.name}-*.npz")):
        with np.load(path) as file:
            description = json.loads(str(file["description"]))
            fits = [description["names"], description["templates"]] == wanted
            (matches if fits else others).append((path, dict(file)))
    if len(matches) == 1:
        arrays = matches[0][1]
        return ClassMatrix(arrays["matrix"], arrays["class_of_row"], float(arrays["logit_scale"]))
    if matches:
        raise ValueError(
            f"{folder} has {len(matches)} class matrices of {space.name}, from different text"
            f" towers: {', '.join(path.name for path, _ in matches)}; delete all but one."
        )
    stale = f" ({others[0][0].name} is of other names or sentences)" if others else ""
    raise FileNotFoundError(
        f"{folder} has no class embeddings of {space.name}{stale}; make them with"
        f" `python -m clouds_jax.text --weights {folder} --space {space.name}`, or, where the text"
        f" tower lies in another folder, with `--weights THAT_FOLDER --output {folder}`."
    )


def _unit(x: Float[np.ndarray, "*n v"]) -> Float[np.ndarray, "*n v"]:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _hash(tree: Mapping[str, Any]) -> str:
    """sha256 of the paths and values of a tree."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
