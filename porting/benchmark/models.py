"""The models of a benchmark in both frameworks; PyTorch's parts as programs to be timed."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

from clouds_jax.losses.points import Counts
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.head import Mask2FormerHead
from clouds_jax.nn.mask2former.size import HeadSize
from porting.benchmark.programs import Program, set_loss
from porting.conversion.targets import encoder_shapes, head_shapes
from porting.files.trees import Tree
from porting.parity.model_pair import with_weights
from porting.reference.families import FAMILIES
from porting.reference.mask2former import Head
from porting.reference.randomise import randomise
from porting.tables import get_table
from porting.tables.apply import apply_rules

# how the names of CLIP's text tower begin
_TEXT = ("transformer.", "token_embedding.", "ln_final.", "positional_", "text_", "logit_")


class Models:
    """An encoder and a Mask2Former head in both frameworks, with the same random weights.

    Args:
        encoder: name in `ENCODERS`.
        classes: number of classes k.
        gpu: run PyTorch on the GPU.
        dtype: "bfloat16" runs PyTorch under autocast, as its users do.
        head: hyperparameters of the head.
        compiled: compile PyTorch's models with torch.compile.

    Attributes:
        encoder, head: the JAX modules.
        reference: PyTorch's encoder.
        torch_head: PyTorch's head.
        device: device of PyTorch's models.
    """

    def __init__(
        self,
        encoder: str,
        classes: int,
        *,
        gpu: bool,
        dtype: str,
        head: HeadSize,
        compiled: bool,
    ):
        clip = encoder in FAMILIES["open_clip_convnext"].full
        family = "open_clip_convnext" if clip else "timm_convnext"
        torch.manual_seed(0)
        build = FAMILIES[family].encoder
        assert build
        self.reference = build(encoder)
        randomise(self.reference.module, 0)
        widths = get_encoder(encoder).widths
        self.torch_head = Head(widths, head, classes)
        randomise(self.torch_head, 1)
        self.encoder = _convert(
            family,
            {"encoder": encoder_shapes(encoder)},
            _without_text(self.reference.module.state_dict()),
            get_encoder(encoder).build,
        )
        self.head = _convert(
            "mask2former_hf",
            {"head": head_shapes(widths, head, classes)},
            self.torch_head.state_dict(),
            lambda rngs: Mask2FormerHead(widths, head, classes, rngs=rngs),
        )
        self.device = torch.device("cuda" if gpu else "cpu")
        self._half = dtype == "bfloat16"
        self._spec = get_encoder(encoder)
        self.reference.module.to(self.device, memory_format=torch.channels_last)
        self.torch_head.to(self.device)
        self.classes = classes
        wrap: Any = torch.compile if compiled else (lambda function: function)
        self._features = wrap(self.features)
        self._head = wrap(self.torch_head)

    def autocast(self) -> Any:
        """The context for bfloat16; a null context in float32."""
        if not self._half:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features res2 to res5, NCHW, of normalised images."""
        feature_of = {step: name for name, step in self.reference.taps.items()}
        features = {}
        for name, step in self.reference.steps:
            x = step(x)
            if name in feature_of:
                feature = feature_of[name]
                features[feature] = self.reference.norms.get(feature, lambda y: y)(x)
        return [features[f"res{level}"] for level in range(2, 6)]

    def images(self, pixels: np.ndarray) -> torch.Tensor:
        """RGB images (b, h, w, 3), 0..255, normalised, on the device, channels last in memory."""
        x = torch.from_numpy(pixels).to(self.device).float()
        mean, std = (torch.tensor(v, device=self.device) for v in (self._spec.mean, self._spec.std))
        x = ((x - mean) / std).permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last)

    def encode(self, pixels: np.ndarray) -> Program:
        """Computes the features of RGB images (b, h, w, 3), 0..255."""
        x = self.images(pixels)

        def call() -> list[torch.Tensor]:
            with torch.no_grad(), self.autocast():
                return self._features(x)

        return Program(call, self.device)

    def infer(self, pixels: np.ndarray) -> Program:
        """Predicts the class map (b, h, w) of RGB images (b, h, w, 3), 0..255."""

        def call() -> torch.Tensor:
            with torch.no_grad(), self.autocast():
                x = self.images(pixels)
                classes, masks = self._head([f.float() for f in self._features(x)])
                logits = F.interpolate(
                    masks[-1], x.shape[-2:], mode="bilinear", align_corners=False
                )
                votes = classes[-1].softmax(-1)[..., :-1]
                return torch.einsum("bqk,bqhw->bkhw", votes, logits.sigmoid()).argmax(1)

        return Program(call, self.device)

    def pixel_decoder(self, maps: list[np.ndarray], *, gradient: bool) -> Program:
        """Runs the pixel decoder on features res2 to res5, (b, h, w, c) each.

        Outputs are mask features and levels, coarsest first; with `gradient`, the gradients of the
        level embedding and of the bias of the mask features.
        """
        decoder, features = self.torch_head.pixel_decoder, [self._nchw(x) for x in maps]
        wanted = [decoder.level_embed, decoder.mask_projection.bias]

        def call() -> Any:
            with torch.set_grad_enabled(gradient), self.autocast():
                decoded = decoder(features, return_dict=True)
            outputs = [decoded.mask_features, *decoded.multi_scale_features]
            return _gradients(outputs, decoder, wanted) if gradient else outputs

        return Program(call, self.device)

    def transformer_decoder(
        self, levels: list[np.ndarray], mask_features: np.ndarray, *, gradient: bool
    ) -> Program:
        """Runs the transformer decoder on levels and mask features, (b, h, w, c) each.

        Outputs are class and mask logits of the first decoder output, with all others computed;
        with `gradient`, the gradients of the inputs, with those of the weights computed.
        """
        head, inputs = self.torch_head, [self._nchw(x) for x in (*levels, mask_features)]
        for x in inputs:
            x.requires_grad_(gradient)

        def call() -> Any:
            with torch.set_grad_enabled(gradient), self.autocast():
                decoded = head.transformer(multi_scale_features=inputs[:3], mask_features=inputs[3])
                classes = [
                    head.class_predictor(x.transpose(0, 1))
                    for x in decoded.intermediate_hidden_states
                ]
            masks = decoded.masks_queries_logits
            if not gradient:
                return classes[0], masks[0]
            return _gradients([torch.stack(classes), torch.stack(masks)], head, inputs)

        return Program(call, self.device)

    def _nchw(self, x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(self.device)

    def step(self, pixels: np.ndarray, labels: np.ndarray, counts: Counts) -> Program:
        """Takes a step of the warm-up: frozen encoder, head, 30 losses, clipping, AdamW.

        Args:
            pixels: RGB images (b, h, w, 3), 0..255.
            labels: label maps (b, h, w).
            counts: numbers of sampling points.
        """
        optimizer = torch.optim.AdamW(self.torch_head.parameters(), lr=1e-4, weight_decay=0.05)
        label = torch.from_numpy(labels).to(self.device)

        def call() -> torch.Tensor:
            with self.autocast():
                with torch.no_grad():
                    features = self._features(self.images(pixels))
                classes, masks = self._head([f.float() for f in features])
            loss = set_loss(list(classes.float()), list(masks.float()), label, self.classes, counts)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.torch_head.parameters(), 0.01)
            optimizer.step()
            return loss

        return Program(call, self.device)


def _gradients(outputs: list[torch.Tensor], module: nn.Module, wanted: list[Any]) -> list[Any]:
    """Gradients of the sum of the outputs' mean squares with respect to all weights of the module
    and to `wanted`; returns the latter."""
    loss = sum(x.float().square().mean() for x in outputs)
    assert isinstance(loss, torch.Tensor)
    for x in (*module.parameters(), *wanted):
        x.grad = None
    loss.backward()
    return [x.grad for x in wanted]


def _without_text(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(_TEXT)}


def _convert(
    family: str,
    shapes: Tree,
    state: Mapping[str, torch.Tensor],
    build: Callable[[nnx.Rngs], nnx.Module],
) -> Any:
    """The JAX module with the weights of a PyTorch state dict, the only part of `shapes`."""
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    (weights,) = apply_rules(arrays, get_table(family).rules, shapes).values()
    return with_weights(build, weights)
