"""An encoder of ours against its PyTorch reference: every block, every feature, the embedding."""

import numpy as np
import torch
from flax import nnx

from porting.compare import Tap, compare
from porting.reference.encoders import Reference
from porting.steps import pure, steps
from porting.tolerances import Tolerance


def to_torch(x: np.ndarray) -> torch.Tensor:
    """NHWC to NCHW."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def to_ours(x: torch.Tensor) -> np.ndarray:
    """NCHW to NHWC."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def compare_encoder(
    reference: Reference, encoder: nnx.Module, images: np.ndarray, tolerance: Tolerance
) -> tuple[list[Tap], dict[str, np.ndarray]]:
    """Runs both on the same images.

    Args:
        reference: in eval mode, with the weights that `encoder` was converted from.
        encoder: ours.
        images: (b, h, w, 3), normalised.
        tolerance: bounds.

    Returns:
        The taps in the model's order, and the reference's features (NHWC) by name.
    """
    taps: list[Tap] = []
    features: dict[str, np.ndarray] = {}
    ours = pure(encoder, lambda m, x: m(x))(images)
    feature_of = {step: name for name, step in reference.taps.items()}
    with torch.no_grad():
        x = to_torch(images)
        for (name, theirs), (our_name, block) in zip(reference.steps, steps(encoder), strict=True):
            if name != our_name:
                raise ValueError(f"step {name} of the reference is {our_name} of ours")
            given = to_ours(x)
            x = theirs(x)
            taps.append(compare(name, "block", block(given), to_ours(x), tolerance))
            if name in feature_of:
                feature = feature_of[name]
                norm = reference.norms.get(feature)
                features[feature] = to_ours(x if norm is None else norm(x))
                taps.append(compare(feature, "chain", ours[feature], features[feature], tolerance))
        if reference.embed is not None:
            theirs_embedding = reference.embed(to_torch(images)).numpy()
            embedding = pure(encoder, lambda m, f: m.embed(f))(ours)
            taps.append(compare("embedding", "chain", embedding, theirs_embedding, tolerance))
    return taps, features
