r"""Class embeddings of CLIP's text tower, computed once and kept beside the weights: the program.

    python -m clouds_jax.text --weights weights/convnext_large_d_320 --space cityscapes19

Every name of every class is read in 14 sentences, whose embeddings are normalised, averaged and
normalised again: one row of the class matrix per name. Training and evaluation with the text
classifier or the ensemble look for the file beside the weights of their encoder; where the tower
was converted to another folder, say so with --output.
"""

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
from clouds_jax.text.tokenizer import Tokenizer
from clouds_jax.weights import fill_module, load_weights

_AT_ONCE = 8  # names per call of the tower

Tokenize = Callable[[Sequence[str]], Int[np.ndarray, "n t"]]
Encode = Callable[[Int[np.ndarray, "n t"]], Float[np.ndarray, "n v"]]


@dataclasses.dataclass(frozen=True)
class ClassMatrix:
    """What a text classifier compares with.

    Attributes:
        matrix: one unit vector per name.
        class_of_row: the class that each row is a name of.
        logit_scale: natural logarithm of CLIP's own factor for cosines.
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
        encode: ids to embeddings of any length.
        tokenize: texts to ids; the largest id ends a text.
        names: of every class.
        templates: sentences with `{}` for the name.
        progress: draws a progress bar.

    Source: FC-CLIP's text classifier; synonyms stay apart, the classifier takes their maximum.
    """
    flat = [name for synonyms in names for name in synonyms]
    ids = tokenize([template.format(name) for name in flat for template in templates])
    ids = ids[:, : ids.argmax(-1).max() + 1]  # what follows the last end mark changes nothing
    count = len(templates) * _AT_ONCE
    rows = []
    with tqdm(total=len(flat), desc="names", unit="name", disable=not progress) as bar:
        for first in range(0, len(ids), count):
            part = ids[first : first + count]
            filled = np.resize(part, (count, ids.shape[1]))  # one shape, hence one compilation
            embedded = np.asarray(encode(filled), np.float32)[: len(part)]
            embedded = _unit(embedded).reshape(-1, len(templates), embedded.shape[-1])
            rows.append(_unit(embedded.mean(1)))
            bar.update(len(rows[-1]))
    return np.concatenate(rows), np.asarray(class_names.class_of_row(names), np.int32)


def load_tower(
    folder: str | os.PathLike, *, quick_gelu: bool | None = None
) -> tuple[Encode, clip_text.TextSize, Mapping[str, Any]]:
    """The text tower of a weights folder: its function, its numbers, its weights.

    Args:
        folder: of `python -m porting convert`.
        quick_gelu: the activation; None takes what the conversion noted.
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
        noted = provenance.get("target", {}).get("text", {})
        if "quick_gelu" not in noted:
            raise ValueError(
                f"{folder} does not say which activation its text tower has; say it with"
                " --activation (OpenAI's weights: quick_gelu, LAION's: gelu)."
            )
        quick_gelu = bool(noted["quick_gelu"])
    size = clip_text.size_of(tree, quick_gelu=quick_gelu)
    graphdef, state = fill_module(
        lambda: clip_text.TextTower(size, rngs=nnx.Rngs(0)),
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
    """Writes the class matrix of a label space; returns its file and whether it is new."""
    names = class_names.class_names(get_space(space))
    encode, size, tree = load_tower(folder, quick_gelu=quick_gelu)
    said = {
        "space": space,
        "names": names,
        "templates": class_names.TEMPLATES,
        "quick_gelu": size.quick_gelu,
        "text_sha256": _hash(tree),
    }
    described = json.dumps(said, sort_keys=True)
    digest = hashlib.sha256(described.encode()).hexdigest()[:12]
    path = output / f"class_embeddings-{space}-{digest}.npz"
    if path.exists():
        return path, False
    tokenize = Tokenizer(vocabulary, context=size.context)
    matrix, rows = class_embeddings(encode, tokenize, names, progress=progress)
    images.write_npz(
        path,
        matrix=matrix,
        class_of_row=rows,
        logit_scale=np.float32(tree["logit_scale"]),
        description=np.asarray(described),
    )
    return path, True


def load_class_matrix(folder: str | os.PathLike, space: LabelSpace) -> ClassMatrix:
    """The class matrix beside the weights in `folder`, of the present names and templates."""
    wanted = json.loads(json.dumps([class_names.class_names(space), class_names.TEMPLATES]))
    found, others = [], []
    for path in sorted(Path(folder).glob(f"class_embeddings-{space.name}-*.npz")):
        with np.load(path) as file:
            said = json.loads(str(file["description"]))
            fits = [said["names"], said["templates"]] == wanted
            (found if fits else others).append((path, dict(file)))
    if len(found) == 1:
        arrays = found[0][1]
        return ClassMatrix(arrays["matrix"], arrays["class_of_row"], float(arrays["logit_scale"]))
    if found:
        raise ValueError(
            f"{folder} has {len(found)} class matrices of {space.name}, from different text towers:"
            f" {', '.join(path.name for path, _ in found)}; delete all but one."
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
    """Of all numbers of a tree and their places."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
