"""Operations in PyTorch as programs to be timed, and the rates of the machine.

`Program.run` is timed; it returns when the device has finished.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx

from clouds_jax.losses.points import Counts
from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks
from porting import _torchvision
from porting.parity.model_pair import with_weights
from porting.reference import criterion
from porting.reference import joint as reference_joint
from porting.reference import sam as reference_sam
from porting.tables import get_table
from porting.tables.apply import apply_rules


@dataclasses.dataclass(frozen=True)
class Program:
    """A PyTorch program to be timed.

    Attributes:
        call: runs the program once and returns tensors.
        device: device that it runs on.
    """

    call: Callable[[], Any]
    device: torch.device

    def run(self) -> None:
        """Runs the program once and waits for the device."""
        self.call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def memory(self) -> float | None:
        """Peak memory in GiB since the last call of this method; None without a GPU."""
        if self.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return peak

    def value(self) -> list[np.ndarray]:
        """The outputs of one run as float32 arrays."""
        outputs = self.call()
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return [x.detach().float().cpu().numpy() for x in outputs]


def losses(
    part: str,
    class_logits: np.ndarray,
    mask_logits: np.ndarray,
    labels: np.ndarray,
    classes: int,
    counts: Counts,
    *,
    gpu: bool,
) -> Program:
    """The criterion with its gradients, or the matching alone.

    Args:
        part: "criterion" or "match".
        class_logits: (o, b, q, k+1).
        mask_logits: (o, b, h, w, q).
        labels: label maps (b, H, W).
        classes: number of classes k.
        counts: numbers of sampling points.
        gpu: run on the GPU.
    """
    device = torch.device("cuda" if gpu else "cpu")
    logits = torch.from_numpy(class_logits.copy()).to(device).requires_grad_()
    maps = torch.from_numpy(np.moveaxis(mask_logits, -1, 2).copy()).to(device).requires_grad_()
    label = torch.from_numpy(labels).to(device)

    def match() -> torch.Tensor:
        targets = criterion.targets_of(label, classes)
        points = [draw_points(t, counts, device) for t in targets]
        pairs = [criterion.match(c, m, targets, points) for c, m in zip(logits, maps, strict=True)]
        return pairs[0][0][0]

    def loss() -> torch.Tensor:
        logits.grad = maps.grad = None
        total = set_loss(list(logits), list(maps), label, classes, counts)
        total.backward()
        return total

    return Program(loss if part == "criterion" else match, device)


def draw_points(target: criterion.Target, counts: Counts, device: torch.device) -> criterion.Points:
    """Random sampling points of one image and decoder output, as in the original."""

    def points(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, 2, device=device)

    masks = len(target.classes)
    return criterion.Points(
        match=points(counts.uncertain + counts.random),
        candidates=points(masks, counts.candidates),
        random=points(masks, counts.random),
    )


def set_loss(
    class_logits: list[torch.Tensor],
    mask_logits: list[torch.Tensor],
    label: torch.Tensor,
    classes: int,
    counts: Counts,
) -> torch.Tensor:
    """The criterion with random points as in the original; matching by SciPy."""
    targets = criterion.targets_of(label, classes)
    points = [[draw_points(t, counts, label.device) for t in targets] for _ in class_logits]
    total, _ = criterion.criterion(
        class_logits, mask_logits, targets, points, uncertain=counts.uncertain
    )
    return total


def deform(
    values: np.ndarray,
    sizes: tuple[tuple[int, int], ...],
    points: np.ndarray,
    weights: np.ndarray,
    *,
    gradient: bool,
    gpu: bool,
) -> Program:
    """Hugging Face's deformable attention, or its gradients with respect to its inputs.

    Args:
        values: (b, s, n, e), all levels flattened.
        sizes: (h, w) of each level.
        points: sampling points (b, q, n, l, p, 2), (x, y) in [0, 1].
        weights: attention weights (b, q, n, l, p).
        gradient: compute the gradients.
        gpu: run on the GPU.
    """
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
    """SAM's prompt encoder and mask decoder in both frameworks, with the same random weights.

    Args:
        size: dimensions of the decoder.
        embedding: image embedding (g, g, d).
        gpu: run PyTorch's on the GPU.

    Returns:
        The JAX module, and a function of points (n, p, 2) and image size (h, w) that returns
        PyTorch's masks (n, h, w) for this embedding.
    """
    model = reference_sam.random_decoder(size)
    parts = ("prompt_encoder", "mask_decoder")
    state = {
        name: tensor.numpy()
        for name, tensor in model.state_dict().items()
        if name.startswith(parts)
    }

    def build(rngs: nnx.Rngs) -> PromptedMasks:
        return PromptedMasks(size, rngs=rngs)

    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: build(nnx.Rngs(0)))))
    tree = apply_rules(state, get_table("sam_decoder").rules, {"sam": shapes})
    device = torch.device("cuda" if gpu else "cpu")
    model.to(device)
    on_device = torch.from_numpy(embedding.transpose(2, 0, 1)[None].copy()).to(device)

    def prompt(points: np.ndarray, image: tuple[int, int]) -> np.ndarray:
        return reference_joint.prompt_masks(model, on_device, points, image)

    return with_weights(build, tree["sam"]), prompt


def depthwise(x: np.ndarray, kernel: np.ndarray, *, gpu: bool, dtype: str) -> Program:
    """A depthwise convolution of x (b, h, w, c) with a kernel (kh, kw, c), channels last."""
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
    """FLOP/s of a large matrix product, best of five."""
    n = 8192 if gpu else 2048
    device = torch.device("cuda" if gpu else "cpu")
    a = torch.randn(n, n, device=device, dtype=getattr(torch, dtype))
    return 2 * n**3 / _fastest(Program(lambda: a @ a, device))


def copy_rate(gpu: bool) -> float:
    """Bytes/s read and written by a copy much larger than the caches, best of five."""
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
    """FLOPs of matrix products and convolutions in one run."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        program.call()
    return counter.get_total_flops()
