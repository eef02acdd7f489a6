"""Random weights that reveal errors: nothing stays at 0, at 1, or too small to matter."""

import math

import torch
from torch import nn

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)
_SPREAD = 0.25  # standard deviation of norm weights around 1, and of biases around 0


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Redraws every parameter and running statistic of `module`; returns it in eval mode.

    Matrices and kernels preserve the scale of their inputs (standard deviation 1 / sqrt(fan in)).
    Norms, biases and ConvNeXt's gamma get values of order 1, where a new model has 1, 0 and 1e-6,
    which would hide that they are swapped or missing.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, std: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    norms = {id(m.weight) for m in module.modules() if isinstance(m, _NORMS)}
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in module.named_parameters():
        if id(parameter) in norms:
            normal(parameter, 1.0, _SPREAD)
        elif id(parameter) in embeddings or name.endswith("level_embed"):
            normal(parameter, 0.0, 1.0)
        elif parameter.ndim > 1:
            normal(parameter, 0.0, 1 / math.sqrt(parameter[0].numel()))
        elif name.endswith("sampling_offsets.bias"):
            normal(parameter, 0.0, 2.0)  # pixels; some points fall outside the map
        elif name.endswith("gamma"):
            normal(parameter, 0.5, _SPREAD)
        else:
            normal(parameter, 0.0, _SPREAD)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            mean, var = norm.running_mean, norm.running_var
            assert mean is not None and var is not None
            normal(mean, 0.0, _SPREAD)
            var.copy_(torch.rand(var.shape, generator=generator) + 0.5)
    return module.eval()
