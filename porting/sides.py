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
from porting.reference import encoders
from porting.reference.encoders import Reference
from porting.reference.mask2former import Head, from_original, to_original
from porting.reference.randomise import randomise
from porting.rules import ConversionError, Plan, apply_rules, plan
from porting.sources import open_checkpoint, tensor_hash
from porting.tables import Table
from porting.targets import Target, choose

_WIDTHS = (8, 16, 24, 32)
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
# Family -> encoder of the random models.
_ENCODERS = {
    "open_clip_convnext": dict(tiny="convnext_debug", full="convnext_large_d_320"),
    "timm_convnext": dict(tiny="convnext_tiny", full="convnext_tiny"),
    "timm_clip_convnext": dict(tiny="convnext_debug", full="convnext_large_d_320"),
    "efficientnet_lite0": dict(tiny="efficientnet_lite0", full="efficientnet_lite0"),
    "clouds": dict(tiny="convnext_debug", full="convnext_large_d_320"),
}
_BUILD: dict[str, Callable[[str], Reference]] = {
    "open_clip_convnext": encoders.open_clip_convnext,
    "timm_convnext": lambda name: encoders.timm_convnext(name, clip=False),
    "timm_clip_convnext": lambda name: encoders.timm_convnext(name, clip=True),
    "efficientnet_lite0": lambda _: encoders.efficientnet_lite0(),
    "clouds": encoders.open_clip_convnext,
}
# What stands before the names of the encoder's own library.
_PREFIX = {"clouds": "backbone.clip_model."}


@dataclasses.dataclass
class Sides:
    """Both models; the encoder, the head or both.

    Attributes:
        table: the rules that led from one side to the other.
        target: what was converted.
        plan: which tensor went where.
        checkpoint: of a file its provenance; of random weights the seed and a hash.
        reference, reference_head: PyTorch's.
        encoder, head: ours.
    """

    table: Table
    target: Target
    plan: Plan
    checkpoint: dict[str, Any]
    reference: Reference | None
    reference_head: Head | None
    encoder: nnx.Module | None
    head: Mask2FormerHead | None


def from_random(table: Table, size: str, seed: int) -> Sides:
    """Random PyTorch models of a family, converted.

    Args:
        table: of the family.
        size: "tiny" or "full".
        seed: of the weights.
    """
    name = _ENCODERS.get(table.name, {}).get(size)
    reference = _BUILD[table.name](name) if name else None
    reference_head = None
    if table.name not in _ENCODERS or table.name == "clouds":
        full = get_encoder("convnext_large_d_320").widths
        widths = get_encoder(name).widths if name else {"tiny": _WIDTHS, "full": full}[size]
        reference_head = Head(widths, _HEADS[size], _CLASSES[size])
    if reference:
        randomise(reference.module, seed)
        if table.name == "timm_clip_convnext":
            torch.nn.init.zeros_(reference.module.head.fc.bias)
    if reference_head:
        randomise(reference_head, seed)
    state = _state_dict(table, reference, reference_head)
    text = "".join(f"{name} {tensor_hash(tensor)}\n" for name, tensor in state.items())
    checkpoint = {
        "file": f"random weights, seed {seed}",
        "format": "state dict of the PyTorch classes",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    target = choose(state, table, encoder=name, heads=_HEADS[size].num_heads)
    return _joined(table, target, state, checkpoint, reference, reference_head)


def from_file(table: Table, file: str, heads: int) -> Sides:
    """The PyTorch models that a checkpoint is for, with its weights, and the converted ones."""
    state, provenance = open_checkpoint(file)
    target = choose(state, table, heads=heads)
    reference = reference_head = None
    if target.encoder:
        reference = _BUILD[table.name](target.encoder)
        prefix = _PREFIX.get(table.name, "")
        _load(reference.module, {k.removeprefix(prefix): v for k, v in state.items()})
    if target.head:
        assert target.widths and target.classes
        reference_head = Head(target.widths, target.head, target.classes)
        tensors = {k: torch.from_numpy(np.array(v, np.float32)) for k, v in state.items()}
        if table.name != "mask2former_hf":
            tensors = from_original(reference_head, tensors)
        _load(reference_head, {k: v.numpy() for k, v in tensors.items()})
    return _joined(table, target, state, provenance.to_json(), reference, reference_head)


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
    if planned.misfits:
        raise ConversionError(planned.misfits)
    tree = apply_rules(state, table.rules, target.want)
    encoder = head = None
    if target.encoder:
        spec = get_encoder(target.encoder)
        encoder = with_weights(lambda: spec.build(nnx.Rngs(0)), tree["encoder"])
    if target.head:
        widths, size, classes = target.widths, target.head, target.classes
        assert widths and classes
        head = with_weights(
            lambda: Mask2FormerHead(widths, size, classes, rngs=nnx.Rngs(0)), tree["head"]
        )
    return Sides(table, target, planned, checkpoint, reference, reference_head, encoder, head)


def with_weights(make: Callable[[], nnx.Module], tree: dict) -> Any:
    """The module that `make` describes, with the weights of `tree`; draws no random ones."""
    graphdef, state = nnx.split(nnx.eval_shape(make))
    leaves = {path: state_leaf for path, state_leaf in nnx.to_flat_state(state)}
    filled = []
    for path, leaf in leaves.items():
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
        prefix = _PREFIX.get(table.name, "")
        tensors |= {prefix + name: t for name, t in reference.module.state_dict().items()}
    if head:
        own = head.state_dict()
        tensors |= own if table.name == "mask2former_hf" else to_original(own)
    if table.name == "clouds":
        assert head is not None
        tensors["criterion.empty_weight"] = torch.ones(head.class_predictor.out_features)
        tensors["void_embedding.weight"] = torch.randn(1, 8)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _load(module: torch.nn.Module, state: Mapping[str, np.ndarray]) -> None:
    """Fills a module; tensors that the file lacks must belong to CLIP's text tower."""
    own = module.state_dict()
    visual = {name for name in own if not hasattr(module, "visual") or name.startswith("visual.")}
    missing = sorted(visual - state.keys())
    if missing:
        raise ConversionError(
            [f"{name}: the reference has it, the file does not" for name in missing]
        )
    found = {k: torch.from_numpy(np.array(state[k])) for k in visual}
    module.load_state_dict(found, strict=visual == own.keys())
