"""The two models of a parity run: PyTorch's and ours, with the same weights."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from clouds_jax.encoders import get_encoder
from clouds_jax.nn.mask2former import Mask2FormerHead
from clouds_jax.nn.sizes import HeadSize
from porting.reference.encoders import Reference
from porting.reference.families import FAMILIES
from porting.reference.mask2former import Head, from_original, to_original
from porting.reference.randomise import randomise
from porting.rules import ConversionError, Plan, apply_rules, plan
from porting.sources import open_checkpoint, tensor_hash
from porting.tables import Table
from porting.targets import Target, choose

_CLASSES = {"tiny": 5, "full": 19}
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
class EncoderPair:
    """PyTorch's encoder and ours; `name` is in `ENCODERS`."""

    name: str
    theirs: Reference
    ours: Any


@dataclasses.dataclass(frozen=True)
class HeadPair:
    """PyTorch's head and ours, which read features of these widths."""

    widths: tuple[int, int, int, int]
    theirs: Head
    ours: Mask2FormerHead


@dataclasses.dataclass(frozen=True)
class Sides:
    """Both models with the same weights.

    Attributes:
        table: the rules that led from one side to the other.
        target: what was converted.
        plan: which tensor went where.
        checkpoint: of a file its provenance; of random weights the seed and a hash.
        encoder, head: the models; one of them may be absent.
    """

    table: Table
    target: Target
    plan: Plan
    checkpoint: dict[str, Any]
    encoder: EncoderPair | None
    head: HeadPair | None


def from_random(table: Table, size: str, seed: int, encoder: str | None = None) -> Sides:
    """Random PyTorch models of a family, converted.

    Args:
        table: of the family.
        size: "tiny" or "full".
        seed: of the weights.
        encoder: our name; None takes the family's small one, or the first of its full ones.
    """
    family = FAMILIES[table.name]
    name = encoder or (family.tiny if size == "tiny" else family.full[0])
    reference = randomised = None
    if family.encoder:
        reference = family.encoder(name)
        randomise(reference.module, seed)
        if table.name == "timm_clip_convnext":
            torch.nn.init.zeros_(reference.module.head.fc.bias)  # as in timm's files
    if family.head:
        randomised = Head(get_encoder(name).widths, _HEADS[size], _CLASSES[size])
        randomise(randomised, seed)
    state = _state_dict(table, reference, randomised)
    text = "".join(f"{name} {tensor_hash(tensor)}\n" for name, tensor in state.items())
    checkpoint = {
        "file": f"random weights, seed {seed}",
        "format": "state dict of the PyTorch classes",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    target = choose(state, table, encoder=name if reference else None, heads=_HEADS[size].num_heads)
    return _joined(table, target, state, checkpoint, reference, randomised)


def from_file(table: Table, file: str, heads: int) -> Sides:
    """The PyTorch models that a checkpoint is for, with its weights, and the converted ones."""
    state, provenance = open_checkpoint(file)
    target = choose(state, table, heads=heads)
    reference = head = None
    if target.encoder:
        family = FAMILIES[table.name]
        assert family.encoder is not None  # the table has an encoder, so the family has one
        reference, prefix = family.encoder(target.encoder), family.prefix
        _load(reference.module, {k.removeprefix(prefix): v for k, v in _tensors(state).items()})
    if target.head and target.widths and target.classes:
        head = Head(target.widths, target.head, target.classes)
        tensors = _tensors(state)
        _load(head, tensors if "hf" in table.name else from_original(head, tensors))
    return _joined(table, target, state, provenance.to_json(), reference, head)


def _joined(
    table: Table,
    target: Target,
    state: Mapping[str, np.ndarray],
    checkpoint: dict[str, Any],
    reference: Reference | None,
    reference_head: Head | None,
) -> Sides:
    """Our models with the weights of `state`, beside the references."""
    planned = plan(state, table.rules, target.want)
    tree = apply_rules(state, table.rules, target.want)
    encoder = head = None
    if reference and target.encoder:
        spec = get_encoder(target.encoder)
        ours = with_weights(lambda: spec.build(nnx.Rngs(0)), tree["encoder"])
        encoder = EncoderPair(target.encoder, reference, ours)
    if reference_head and target.head and target.widths and target.classes:
        widths, size, classes = target.widths, target.head, target.classes
        ours = with_weights(
            lambda: Mask2FormerHead(widths, size, classes, rngs=nnx.Rngs(0)), tree["head"]
        )
        head = HeadPair(widths, reference_head, ours)
    return Sides(table, target, planned, checkpoint, encoder, head)


def with_weights(make: Callable[[], nnx.Module], tree: Mapping) -> Any:
    """The module that `make` describes, with the weights of `tree`; draws no random ones."""
    graphdef, state = nnx.split(nnx.eval_shape(make))
    filled = []
    for path, leaf in nnx.to_flat_state(state):
        node: Any = tree
        for key in path:
            node = node[key]
        filled.append((path, leaf.replace(jnp.asarray(node))))
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


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
        if table.name == "clouds":
            tensors["criterion.empty_weight"] = torch.ones(head.class_predictor.out_features)
            tensors["void_embedding.weight"] = torch.ones(1, 8)
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
