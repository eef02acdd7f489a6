"""PyTorch models of a parity run, with the weights of a file or random ones."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.weights import load_weights
from porting.conversion.conversion import match
from porting.conversion.convert import prepare
from porting.files.open import EVERYTHING, Selection
from porting.parity.model_pair import (
    ClassMatrix,
    ModelPair,
    build_pair,
    random_class_matrix,
    random_provenance,
)
from porting.reference.encoders import Reference
from porting.reference.families import FAMILIES
from porting.reference.mask2former import Head, from_original, to_original
from porting.reference.randomise import randomise
from porting.reference.sam import build_sam, random_sam
from porting.tables import Table
from porting.tables.apply import ConversionError

_CLASSES = {"tiny": 5, "full": 19}
_WIDTHS = {"tiny": 16, "full": 768}  # of a class matrix
_HEADS = {
    "tiny": HeadSize(
        num_queries=7,
        dim=64,
        num_heads=4,
        pixel_layers=2,
        pixel_ffn=48,
        decoder_layers=6,
        decoder_ffn=40,
    ),
    "full": HeadSize(),
}


@dataclasses.dataclass(frozen=True)
class RandomModels:
    """PyTorch models of a family with random weights.

    Attributes:
        state: state dict as a checkpoint of the family would hold it.
        encoder, head: the models, each None where the family has no such part; both None for a SAM.
        matrix: class matrix, where the head has a text classifier.
    """

    state: dict[str, np.ndarray]
    encoder: Reference | None = None
    head: Head | None = None
    matrix: ClassMatrix | None = None


def random_models(table: Table, size: str, seed: int, encoder: str | None = None) -> RandomModels:
    """Builds the PyTorch models of a family with random weights.

    Args:
        table: rules of the family.
        size: "tiny" or "full".
        seed: seed of the weights.
        encoder: name in `ENCODERS` or `SAMS`; None takes the family's tiny one, or the first of its
            full ones.
    """
    if table.name not in FAMILIES:
        sam = random_sam(encoder, seed)
        return RandomModels({name: tensor.numpy() for name, tensor in sam.state_dict().items()})
    family = FAMILIES[table.name]
    name = encoder_name(table, size, encoder)
    reference = head = matrix = None
    if family.encoder:
        reference = family.encoder(name)
        randomise(reference.module, seed)
        if table.name == "timm_clip_convnext":
            torch.nn.init.zeros_(reference.module.head.fc.bias)  # as in timm's files
    if family.head:
        head, matrix = _new_head(table, size, name)
        randomise(head, seed)
    return RandomModels(_state_dict(table, reference, head), reference, head, matrix)


def from_random(
    table: Table, size: str, seed: int, *, encoder: str | None = None, dtype: str = "float32"
) -> ModelPair:
    """Random PyTorch models of a family, and JAX models with the converted weights.

    Args:
        table, size, seed, encoder: see `random_models`.
        dtype: dtype of the JAX encoder.
    """
    models = random_models(table, size, seed, encoder)
    name = encoder_name(table, size, encoder) if models.encoder else None
    provenance = random_provenance(models.state, seed)
    conversion = match(models.state, provenance, table, encoder=name, heads=_HEADS[size].num_heads)
    return build_pair(
        conversion,
        torch_encoder=models.encoder,
        torch_head=models.head,
        matrix=models.matrix,
        dtype=dtype,
    )


def from_file(
    table: Table,
    file: str,
    heads: int,
    *,
    dtype: str = "float32",
    converted: Path | None = None,
    encoder: str | None = None,
    selection: Selection = EVERYTHING,
) -> ModelPair:
    """PyTorch and JAX models with the weights of a checkpoint.

    Args:
        table: rules of the family.
        file: the checkpoint.
        heads: attention heads of a head.
        dtype: dtype of the JAX encoder.
        converted: weights folder for the JAX side, instead of converting `file` in memory.
        encoder: name in `ENCODERS`; None infers it from the shapes.
        selection: the tensors of `file` to read.
    """
    conversion = prepare(table.name, file, heads=heads, encoder=encoder, selection=selection)
    target, tensors = conversion.target, _tensors(conversion.state)
    reference = head = matrix = None
    if target.encoder:
        family = FAMILIES[table.name]
        assert family.encoder is not None  # the table has an encoder, so the family has one
        reference, prefix = family.encoder(target.encoder), family.prefix
        _load(reference.module, {k.removeprefix(prefix): v for k, v in tensors.items()})
    if target.head and target.widths:
        if target.embedding:
            matrix = random_class_matrix(_CLASSES["full"], target.embedding)
        head = _build_head(target.widths, target.head, target.classes or 1, matrix)
        _load(head, tensors if "hf" in table.name else from_original(head, tensors))
    tree = None
    if converted:
        tree, provenance = load_weights(converted)
        if provenance["source"]["sha256"] != conversion.provenance.sha256:
            raise ValueError(f"{converted} was converted from another file than {file}.")
    return build_pair(
        conversion, tree, torch_encoder=reference, torch_head=head, matrix=matrix, dtype=dtype
    )


def load_strictly(
    table: Table, state: Mapping[str, np.ndarray], size: str, encoder: str | None
) -> int:
    """Loads a state dict into new PyTorch models with strict=True; returns the number of tensors.

    Args:
        table: rules of the family.
        state: state dict as a checkpoint of the family would hold it.
        size: "tiny" or "full".
        encoder: name in `ENCODERS` or `SAMS`; None for a decoder alone.
    """
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    if table.name not in FAMILIES:
        build_sam(encoder).load_state_dict(tensors, strict=True)
        return len(tensors)
    family, loaded = FAMILIES[table.name], 0
    name = encoder_name(table, size, encoder)
    if family.encoder:
        own = {
            name.removeprefix(family.prefix): tensor
            for name, tensor in tensors.items()
            if not family.head or (family.prefix and name.startswith(family.prefix))
        }
        family.encoder(name).module.load_state_dict(own, strict=True)
        loaded += len(own)
    if family.head:
        head, _ = _new_head(table, size, name)
        own = (
            {name: tensors[name] for name in tensors if name in head.state_dict()}
            if table.name == "mask2former_hf"
            else from_original(head, tensors)
        )
        head.load_state_dict(own, strict=True)
        loaded += len(own)
    return loaded


def encoder_name(table: Table, size: str, encoder: str | None = None) -> str:
    """Name in `ENCODERS` of the encoder of random models."""
    family = FAMILIES[table.name]
    return encoder or (family.tiny if size == "tiny" else family.full[0])


def head_count(size: str) -> int:
    """Attention heads of random models."""
    return _HEADS[size].num_heads


def _new_head(table: Table, size: str, encoder: str) -> tuple[Head, ClassMatrix | None]:
    """A new head of a family, and the class matrix that a text classifier reads."""
    classifier = FAMILIES[table.name].classifier
    head_size = dataclasses.replace(_HEADS[size], classifier=classifier)
    matrix = random_class_matrix(_CLASSES[size], _WIDTHS[size]) if classifier == "text" else None
    return _build_head(get_encoder(encoder).widths, head_size, _CLASSES[size], matrix), matrix


def _build_head(
    widths: tuple[int, int, int, int], size: HeadSize, classes: int, matrix: ClassMatrix | None
) -> Head:
    if matrix is None:
        return Head(widths, size, classes)
    return Head(widths, size, len(matrix.counts), torch.from_numpy(matrix.rows), matrix.counts)


def _state_dict(
    table: Table, reference: Reference | None, head: Head | None
) -> dict[str, np.ndarray]:
    """The state dict of these models as a checkpoint of the family would hold it."""
    tensors: dict[str, torch.Tensor] = {}
    if reference:
        prefix = FAMILIES[table.name].prefix
        tensors |= {prefix + name: t for name, t in reference.module.state_dict().items()}
    if head:
        own = head.state_dict()
        tensors |= own if table.name == "mask2former_hf" else to_original(own)
        if table.name.startswith("clouds"):
            tensors["criterion.empty_weight"] = torch.ones(head.classes + 1)
            tensors.setdefault("void_embedding.weight", torch.ones(1, 8))
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensors(state: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The state dict in float32, the dtype of both sides; integers stay."""
    tensors = {}
    for name, array in state.items():
        whole = np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_
        tensors[name] = torch.from_numpy(np.array(array, array.dtype if whole else np.float32))
    return tensors


def _load(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Fills a module; of CLIP the visual tower alone, since parity does not run the text tower."""
    own = module.state_dict()
    clip = hasattr(module, "visual")
    wanted = [name for name in own if not clip or name.startswith("visual.")]
    missing = [name for name in wanted if name not in state]
    if missing:
        raise ConversionError([f"{name}: the reference has it, the file not" for name in missing])
    module.load_state_dict({name: state[name] for name in wanted}, strict=not clip)
