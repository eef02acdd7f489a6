"""PyTorch's models of a parity run, with the weights of a file or with random ones."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.weights import load_weights
from porting.conversion.convert import prepare
from porting.conversion.targets import choose
from porting.files.open import tensor_hash
from porting.parity.model_pair import ClassMatrix, Sides, joined, random_matrix
from porting.reference import sam
from porting.reference.encoders import Reference
from porting.reference.families import FAMILIES
from porting.reference.mask2former import Head, from_original, to_original
from porting.reference.randomise import randomise
from porting.tables import Table
from porting.tables.rules import ConversionError, apply_rules, plan

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


def from_random(
    table: Table, size: str, seed: int, encoder: str | None = None, dtype: str = "float32"
) -> Sides:
    """Random PyTorch models of a family, converted.

    Args:
        table: of the family.
        size: "tiny" or "full".
        seed: of the weights.
        encoder: our name; None takes the family's small one, or the first of its full ones.
        dtype: of our encoder.
    """
    state, reference, head, matrix = random_state(table, size, seed, encoder)
    text = "".join(f"{name} {tensor_hash(tensor)}\n" for name, tensor in state.items())
    checkpoint = {
        "file": f"random weights, seed {seed}",
        "format": "state dict of the PyTorch classes",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    name = encoder_name(table, size, encoder) if reference else None
    target = choose(state, table, encoder=name, heads=_HEADS[size].num_heads)
    planned = plan(state, table.rules, target.want)
    tree = apply_rules(state, table.rules, target.want)
    return joined(
        table,
        target,
        planned,
        state,
        tree,
        checkpoint,
        reference=reference,
        reference_head=head,
        matrix=matrix,
        dtype=dtype,
    )


def random_state(
    table: Table, size: str, seed: int, encoder: str | None = None
) -> tuple[dict[str, np.ndarray], Reference | None, Head | None, ClassMatrix | None]:
    """The state dict of a family with random weights, and the PyTorch models it is of.

    Of a SAM the state dict alone.
    """
    if table.name not in FAMILIES:
        model = sam.random_sam(encoder, seed)
        return {name: t.numpy() for name, t in model.state_dict().items()}, None, None, None
    family = FAMILIES[table.name]
    name = encoder_name(table, size, encoder)
    reference = head = matrix = None
    if family.encoder:
        reference = family.encoder(name)
        randomise(reference.module, seed)
        if table.name == "timm_clip_convnext":
            torch.nn.init.zeros_(reference.module.head.fc.bias)  # as in timm's files
    if family.head:
        head, matrix = _random_head(table, size, name)
        randomise(head, seed)
    return _state_dict(table, reference, head), reference, head, matrix


def _random_head(table: Table, size: str, encoder: str) -> tuple[Head, ClassMatrix | None]:
    """A new head of a family, and the class matrix that a text classifier reads."""
    classifier = FAMILIES[table.name].classifier
    numbers = dataclasses.replace(_HEADS[size], classifier=classifier)
    matrix = random_matrix(_CLASSES[size], _WIDTHS[size]) if classifier == "text" else None
    return _head(get_encoder(encoder).widths, numbers, _CLASSES[size], matrix), matrix


def _head(
    widths: tuple[int, int, int, int], size: HeadSize, classes: int, matrix: ClassMatrix | None
) -> Head:
    if matrix is None:
        return Head(widths, size, classes)
    return Head(widths, size, len(matrix.counts), torch.from_numpy(matrix.rows), matrix.counts)


def heads(size: str) -> int:
    """Attention heads of random models."""
    return _HEADS[size].num_heads


def encoder_name(table: Table, size: str, encoder: str | None = None) -> str:
    """Our name of the encoder of random models."""
    family = FAMILIES[table.name]
    return encoder or (family.tiny if size == "tiny" else family.full[0])


def from_file(
    table: Table,
    file: str,
    heads: int,
    dtype: str = "float32",
    converted: Path | None = None,
    encoder: str | None = None,
) -> Sides:
    """The PyTorch models that a checkpoint is for, with its weights, and ours.

    Args:
        table: of the family.
        file: the checkpoint.
        heads: attention heads of a head.
        dtype: of our encoder.
        converted: folder of weights that ours takes, instead of converting `file` in memory.
        encoder: our name; None takes the one that fits.
    """
    made = prepare(table.name, file, heads=heads, encoder=encoder)
    target, tensors = made.target, _tensors(made.state)
    reference = head = matrix = None
    if target.encoder:
        family = FAMILIES[table.name]
        assert family.encoder is not None  # the table has an encoder, so the family has one
        reference, prefix = family.encoder(target.encoder), family.prefix
        _load(reference.module, {k.removeprefix(prefix): v for k, v in tensors.items()})
    if target.head and target.widths:
        if target.embedding:
            matrix = random_matrix(_CLASSES["full"], target.embedding)
        head = _head(target.widths, target.head, target.classes or 1, matrix)
        _load(head, tensors if "hf" in table.name else from_original(head, tensors))
    if converted:
        pass

        tree, provenance = load_weights(converted)
        if provenance["source"]["sha256"] != made.provenance.sha256:
            raise ValueError(f"{converted} was converted from another file than {file}.")
    else:
        tree = made.tree()
    return joined(
        table,
        target,
        made.plan,
        made.state,
        tree,
        made.provenance.to_json(),
        reference=reference,
        reference_head=head,
        matrix=matrix,
        dtype=dtype,
    )


def load_strictly(
    table: Table, state: Mapping[str, np.ndarray], size: str, encoder: str | None
) -> int:
    """Loads a state dict into new PyTorch models with strict=True.

    Returns:
        How many tensors were loaded.
    """
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    if table.name not in FAMILIES:
        sam.sam(encoder).load_state_dict(tensors, strict=True)
        return len(tensors)
    family, loaded = FAMILIES[table.name], 0
    assert encoder is not None
    if family.encoder:
        module = family.encoder(encoder).module
        own = {
            name.removeprefix(family.prefix): tensor
            for name, tensor in tensors.items()
            if not family.head or (family.prefix and name.startswith(family.prefix))
        }
        module.load_state_dict(own, strict=True)
        loaded += len(own)
    if family.head:
        head, _ = _random_head(table, size, encoder)
        own = (
            {name: tensors[name] for name in tensors if name in head.state_dict()}
            if table.name == "mask2former_hf"
            else from_original(head, tensors)
        )
        head.load_state_dict(own, strict=True)
        loaded += len(own)
    return loaded


def _state_dict(
    table: Table, reference: Reference | None, head: Head | None
) -> dict[str, np.ndarray]:
    """What a checkpoint of the family would hold."""
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
    """In float32, which is what both sides compute in; integers stay."""
    tensors = {}
    for name, array in state.items():
        whole = np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_
        tensors[name] = torch.from_numpy(np.array(array, array.dtype if whole else np.float32))
    return tensors


def _load(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Fills a module; of CLIP only the visual tower, the text tower takes no part."""
    own = module.state_dict()
    clip = hasattr(module, "visual")
    wanted = [name for name in own if not clip or name.startswith("visual.")]
    missing = [name for name in wanted if name not in state]
    if missing:
        raise ConversionError([f"{name}: the reference has it, the file not" for name in missing])
    module.load_state_dict({name: state[name] for name in wanted}, strict=not clip)
