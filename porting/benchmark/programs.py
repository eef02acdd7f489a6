"""PyTorch's side of a benchmark: the same models, inputs and losses as programs to be timed.

What is timed is `Program.run`, which ends when the device has ended.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
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
from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks
from porting import _torchvision, tables
from porting.conversion.targets import encoder_want, head_want
from porting.parity import model_pair
from porting.reference import criterion
from porting.reference import joint as reference_joint
from porting.reference import sam as reference_sam
from porting.reference.families import FAMILIES
from porting.reference.mask2former import Head
from porting.reference.randomise import randomise
from porting.tables import rules


@dataclasses.dataclass(frozen=True)
class Program:
    """Something to be timed.

    Attributes:
        call: runs it once and returns tensors.
        device: where.
    """

    call: Callable[[], Any]
    device: torch.device

    def run(self) -> None:
        """Runs it to the end."""
        self.call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def memory(self) -> float | None:
        """GiB that were held at most since this was last asked; None without a GPU."""
        if self.device.type != "cuda":
            return None
        found = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return found

    def value(self) -> list[np.ndarray]:
        """What it returns."""
        found = self.call()
        found = found if isinstance(found, (list, tuple)) else [found]
        return [x.detach().float().cpu().numpy() for x in found]


class Models:
    """Random models of both sides with the same weights.

    Args:
        encoder: our name.
        classes: k.
        gpu: whether PyTorch's go to the GPU.
        dtype: "bfloat16": under autocast, as users of PyTorch run it.
        compiled: through torch.compile.
    """

    def __init__(self, encoder: str, classes: int, *, gpu: bool, dtype: str, compiled: bool):
        clip = encoder in FAMILIES["open_clip_convnext"].full
        family = "open_clip_convnext" if clip else "timm_convnext"
        torch.manual_seed(0)
        made = FAMILIES[family].encoder
        assert made
        self.reference = made(encoder)
        randomise(self.reference.module, 0)
        widths = get_encoder(encoder).widths
        self.torch_head = Head(widths, HeadSize(), classes)
        randomise(self.torch_head, 1)
        self.encoder = _ours(family, "encoder", self.reference.module, encoder_want(encoder),
                             get_encoder(encoder).build)  # fmt: skip
        size = HeadSize()
        self.head = _ours(
            "mask2former_hf", "head", self.torch_head, head_want(widths, size, classes),
            lambda rngs: Mask2FormerHead(widths, size, classes, rngs=rngs),
        )  # fmt: skip
        self.device = torch.device("cuda" if gpu else "cpu")
        self._half = dtype == "bfloat16"
        self._spec = get_encoder(encoder)
        self.reference.module.to(self.device, memory_format=torch.channels_last)
        self.torch_head.to(self.device)
        self.classes = classes
        wrap: Any = torch.compile if compiled else (lambda function: function)
        self._features = wrap(self.encode_now)
        self._head = wrap(self.torch_head)

    def half(self) -> Any:
        """Autocast, if asked for."""
        if not self._half:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def encode_now(self, x: torch.Tensor) -> list[torch.Tensor]:
        taps = {step: name for name, step in self.reference.taps.items()}
        found = {}
        for name, step in self.reference.steps:
            x = step(x)
            if name in taps:
                found[taps[name]] = self.reference.norms.get(taps[name], lambda y: y)(x)
        return [found[f"res{level}"] for level in range(2, 6)]

    def images(self, pixels: np.ndarray) -> torch.Tensor:
        """RGB images 0..255 as the encoder takes them."""
        x = torch.from_numpy(pixels).to(self.device).float()
        mean, std = (torch.tensor(v, device=self.device) for v in (self._spec.mean, self._spec.std))
        x = ((x - mean) / std).permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last)

    def encode(self, pixels: np.ndarray) -> Program:
        """Features res2..res5."""
        x = self.images(pixels)

        def call() -> list[torch.Tensor]:
            with torch.no_grad(), self.half():
                return self._features(x)

        return Program(call, self.device)

    def infer(self, pixels: np.ndarray) -> Program:
        """The class map of images: masks at full size, votes, argmax."""

        def call() -> torch.Tensor:
            with torch.no_grad(), self.half():
                x = self.images(pixels)
                classes, masks = self._head([f.float() for f in self._features(x)])
                logits = F.interpolate(
                    masks[-1], x.shape[-2:], mode="bilinear", align_corners=False
                )
                votes = classes[-1].softmax(-1)[..., :-1]
                return torch.einsum("bqk,bqhw->bkhw", votes, logits.sigmoid()).argmax(1)

        return Program(call, self.device)

    def pixel_decoder(self, maps: list[np.ndarray], *, gradient: bool) -> Program:
        """Mask features and levels, coarsest first, of features res2..res5 (b, h, w, c); or the
        gradients of the level embedding and of the bias of the mask features."""
        decoder, features = self.torch_head.pixel_decoder, [self._nchw(x) for x in maps]
        wanted = [decoder.level_embed, decoder.mask_projection.bias]

        def call() -> Any:
            with torch.set_grad_enabled(gradient), self.half():
                found = decoder(features, return_dict=True)
            outputs = [found.mask_features, *found.multi_scale_features]
            return _gradients(outputs, decoder, wanted) if gradient else outputs

        return Program(call, self.device)

    def transformer_decoder(
        self, levels: list[np.ndarray], mask_features: np.ndarray, *, gradient: bool
    ) -> Program:
        """Class and mask logits of the first output, with all others made; or, for a time to
        compare with, the gradients of the weights and of what it reads."""
        head, inputs = self.torch_head, [self._nchw(x) for x in (*levels, mask_features)]
        for x in inputs:
            x.requires_grad_(gradient)

        def call() -> Any:
            with torch.set_grad_enabled(gradient), self.half():
                found = head.transformer(multi_scale_features=inputs[:3], mask_features=inputs[3])
                classes = [
                    head.class_predictor(x.transpose(0, 1))
                    for x in found.intermediate_hidden_states
                ]
            masks = found.masks_queries_logits
            if not gradient:
                return classes[0], masks[0]
            return _gradients([torch.stack(classes), torch.stack(masks)], head, inputs)

        return Program(call, self.device)

    def _nchw(self, x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(self.device)

    def step(self, pixels: np.ndarray, labels: np.ndarray, counts: Counts) -> Program:
        """A step of the warm-up: encoder without gradient, head, 30 losses, clipping, AdamW."""
        optimizer = torch.optim.AdamW(self.torch_head.parameters(), lr=1e-4, weight_decay=0.05)
        label = torch.from_numpy(labels).to(self.device)

        def call() -> torch.Tensor:
            with self.half():
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
    """Of the sum of the outputs' mean squares, by all weights of the module that they hang on;
    returns those of `wanted`."""
    loss = sum(x.float().square().mean() for x in outputs)
    assert isinstance(loss, torch.Tensor)
    for x in (*module.parameters(), *wanted):
        x.grad = None
    loss.backward()
    return [x.grad for x in wanted]


def losses(
    part: str, class_logits: np.ndarray, mask_logits: np.ndarray, labels: np.ndarray,
    classes: int, counts: Counts, *, gpu: bool,
) -> Program:  # fmt: skip
    """The criterion of given logits, with its gradients; or the matching alone.

    Args:
        part: "criterion" or "match".
        class_logits: (o, b, q, k+1).
        mask_logits: (o, b, h, w, q).
        labels: (b, H, W).
        classes: k.
        counts: of the points.
        gpu: where.
    """
    device = torch.device("cuda" if gpu else "cpu")
    logits = torch.from_numpy(class_logits.copy()).to(device).requires_grad_()
    maps = torch.from_numpy(np.moveaxis(mask_logits, -1, 2).copy()).to(device).requires_grad_()
    label = torch.from_numpy(labels).to(device)

    def pairs() -> torch.Tensor:
        targets = criterion.targets_of(label, classes)
        where = [drawn(t, counts, device) for t in targets]
        found = [criterion.match(c, m, targets, where) for c, m in zip(logits, maps, strict=True)]
        return found[0][0][0]

    def loss() -> torch.Tensor:
        logits.grad = maps.grad = None
        total = set_loss(list(logits), list(maps), label, classes, counts)
        total.backward()
        return total

    return Program(loss if part == "criterion" else pairs, device)


def drawn(target: criterion.Target, counts: Counts, device: torch.device) -> criterion.Points:
    """Points drawn as the original draws them."""

    def points(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, 2, device=device)

    masks = len(target.classes)
    return criterion.Points(
        points(counts.uncertain + counts.random), points(masks, counts.candidates),
        points(masks, counts.random),
    )  # fmt: skip


def set_loss(
    class_logits: list[torch.Tensor],
    mask_logits: list[torch.Tensor],
    label: torch.Tensor,
    classes: int,
    counts: Counts,
) -> torch.Tensor:
    """The criterion with points drawn as the original draws them; matching by SciPy."""
    targets = criterion.targets_of(label, classes)
    where = [[drawn(t, counts, label.device) for t in targets] for _ in class_logits]
    return criterion.criterion(
        class_logits, mask_logits, targets, where, uncertain=counts.uncertain
    )[0]


def deform(
    values: np.ndarray, sizes: tuple[tuple[int, int], ...], points: np.ndarray,
    weights: np.ndarray, *, gradient: bool, gpu: bool,
) -> Program:  # fmt: skip
    """Hugging Face's deformable attention, and its gradients by values, points and weights."""
    _torchvision.prepare()
    from transformers.models.mask2former import modeling_mask2former as hf

    device = torch.device("cuda" if gpu else "cpu")
    inputs = [
        torch.from_numpy(x).to(device).requires_grad_(gradient) for x in (values, points, weights)
    ]

    def call() -> Any:
        out = hf.multi_scale_deformable_attention(inputs[0], list(sizes), inputs[1], inputs[2])
        if not gradient:
            return out.detach()
        return torch.autograd.grad(out.square().sum(), inputs)

    return Program(call, device)


def prompted_masks(size: DecoderSize, embedding: np.ndarray, *, gpu: bool) -> tuple[Any, Callable]:
    """SAM's prompts and masks: our module, and segment_anything's with the same random weights as
    a function of points for this embedding (g, g, d)."""
    model = reference_sam.prompted(size)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()
             if name.startswith(("prompt_encoder", "mask_decoder"))}  # fmt: skip
    want = nnx.to_pure_dict(
        nnx.state(nnx.eval_shape(lambda: PromptedMasks(size, rngs=nnx.Rngs(0))))
    )
    tree = rules.apply_rules(state, tables.get_table("sam_decoder").rules, {"sam": want})
    ours = model_pair.with_weights(lambda: PromptedMasks(size, rngs=nnx.Rngs(0)), tree["sam"])
    device = torch.device("cuda" if gpu else "cpu")
    model.to(device)
    given = torch.from_numpy(embedding.transpose(2, 0, 1)[None].copy()).to(device)

    def ask(points: np.ndarray, image: tuple[int, int]) -> np.ndarray:
        return reference_joint.ask(model, given, points, image)

    return ours, ask


def depthwise(x: np.ndarray, kernel: np.ndarray, *, gpu: bool, dtype: str) -> Program:
    """A depthwise convolution of maps (b, h, w, c) with kernels (kh, kw, c), channels last."""
    device = torch.device("cuda" if gpu else "cpu")
    maps = torch.from_numpy(x).permute(0, 3, 1, 2).to(device, getattr(torch, dtype))
    maps = maps.contiguous(memory_format=torch.channels_last)
    weight = torch.from_numpy(kernel).permute(2, 0, 1)[:, None].to(device, getattr(torch, dtype))
    weight = weight.contiguous(memory_format=torch.channels_last)
    pad = kernel.shape[0] // 2

    def call() -> torch.Tensor:
        return F.conv2d(maps, weight, padding=pad, groups=maps.shape[1])

    return Program(call, device)


def matmul_rate(gpu: bool, dtype: str) -> float:
    """FLOP/s of a large product of matrices, best of five."""
    n = 8192 if gpu else 2048
    device = torch.device("cuda" if gpu else "cpu")
    a = torch.randn(n, n, device=device, dtype=getattr(torch, dtype))
    return 2 * n**3 / _fastest(Program(lambda: a @ a, device))


def copy_rate(gpu: bool) -> float:
    """Bytes/s read and written by a copy far larger than the caches, best of five."""
    n = 2**30 if gpu else 2**28
    device = torch.device("cuda" if gpu else "cpu")
    a, b = (torch.zeros(n, device=device, dtype=torch.uint8) for _ in range(2))
    return 2 * n / _fastest(Program(lambda: b.copy_(a), device))


def _fastest(program: Program) -> float:
    program.run()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        program.run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def flops(program: Program) -> int:
    """Of products and convolutions in one run."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        program.call()
    return counter.get_total_flops()


def _ours(family: str, part: str, module: nn.Module, want: Any, build: Callable) -> Any:
    text = ("transformer.", "token_embedding.", "ln_final.", "positional_", "text_", "logit_")
    state = {
        name: tensor.numpy()
        for name, tensor in module.state_dict().items()
        if part == "head" or not name.startswith(text)
    }
    tree = rules.apply_rules(state, tables.get_table(family).rules, {part: want})
    return model_pair.with_weights(lambda: build(nnx.Rngs(0)), tree[part])
