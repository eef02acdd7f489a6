"""Between our NHWC arrays (channels last) and PyTorch's NCHW tensors (channels first)."""

import numpy as np
import torch


def to_torch(x: np.ndarray) -> torch.Tensor:
    """A new NCHW tensor of an NHWC array."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """The NHWC array of an NCHW tensor on the CPU; a view of its memory."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """NHWC to NCHW."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """NCHW to NHWC."""
    return x.permute(0, 2, 3, 1)
