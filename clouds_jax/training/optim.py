"""The optimizer: clipping, AdamW with decay by parameter, learning rate schedule."""

import re
from collections.abc import Sequence

import jax
import optax

# Mask2Former gives these tables of the transformer decoder no decay: they are nn.Embedding there.
# The pixel decoder's level_embed is a bare parameter and does decay.
_NO_DECAY = (
    r"(.*\.)?(\w+_)?(norm|bn)\d*\.\w+",
    r"(.*\.)?(query_feat|query_embed|void_embedding)",
    r"(.*\.)?transformer_decoder\.level_embed",
)


def decays(path: Sequence[str | int]) -> bool:
    """Whether weight decay applies to the parameter at `path`; biases of linear layers: yes.

    Source: CLOUDS `train_net.py` build_optimizer, WEIGHT_DECAY_NORM = WEIGHT_DECAY_EMBED = 0.
    """
    name = ".".join(map(str, path))
    return not any(re.fullmatch(pattern, name) for pattern in _NO_DECAY)


def make_schedule(
    *,
    lr: float,
    steps: int,
    schedule: str = "constant",
    power: float = 0.9,
    lr_warmup_steps: int = 0,
) -> optax.Schedule:
    """Learning rate by number of updates done: linear warm-up times a constant or a polynomial.

    Args:
        lr: base learning rate.
        steps: updates of the whole run, after which "poly" is zero.
        schedule: "constant" or "poly", the latter lr * (1 - step / steps) ** power.
        power: exponent of "poly".
        lr_warmup_steps: updates over which a factor grows from 0.001 to 1; 0: no warm-up.

    Raises:
        ValueError: an unknown schedule.

    Source: detectron2 WarmupPolyLR and its default WARMUP_FACTOR. CLOUDS sets that factor to 1,
        which is no warm-up: lr_warmup_steps=0.
    """
    if schedule == "constant":
        body = optax.constant_schedule(lr)
    elif schedule == "poly":
        body = optax.polynomial_schedule(lr, 0.0, power, steps)
    else:
        raise ValueError(f"schedule is {schedule!r}; it must be 'constant' or 'poly'.")
    if not lr_warmup_steps:
        return body
    warmup = optax.linear_schedule(0.001, 1.0, lr_warmup_steps)
    return lambda step: warmup(step) * body(step)


def make_optimizer(
    *,
    lr: float,
    steps: int,
    weight_decay: float = 0.05,
    clip_norm: float = 0.01,
    schedule: str = "constant",
    power: float = 0.9,
    lr_warmup_steps: int = 0,
    encoder_factor: float | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """AdamW on gradients clipped to a global norm; decay where `decays` says so.

    Args:
        lr: base learning rate; see `make_schedule` for it and the arguments it takes.
        steps: updates of the whole run.
        weight_decay: decoupled weight decay, multiplied by the learning rate.
        clip_norm: largest L2 norm of all gradients together.
        schedule: "constant" or "poly".
        power: exponent of "poly".
        lr_warmup_steps: updates of the linear warm-up; 0: no warm-up.
        encoder_factor: factor on the learning rate of a trained encoder; None: it is frozen.
        betas: decay rates of Adam's two moments.
        eps: Adam's term outside the root.

    Source: CLOUDS `train_net.py` build_optimizer; numbers of its base config.
    """
    rate = make_schedule(
        lr=lr, steps=steps, schedule=schedule, power=power, lr_warmup_steps=lr_warmup_steps
    )
    adamw = optax.adamw(rate, *betas, eps=eps, weight_decay=weight_decay, mask=_decay_mask)
    parts = [optax.clip_by_global_norm(clip_norm), adamw]
    if encoder_factor is not None:
        parts.append(_slower("encoder", encoder_factor))
    return optax.chain(*parts)


def _slower(part: str, factor: float) -> optax.GradientTransformation:
    """Multiplies the updates, decay included, of the parameters below `part`."""

    def scale(updates: optax.Updates, _: optax.Params | None) -> optax.Updates:
        return jax.tree_util.tree_map_with_path(
            lambda path, x: factor * x if _name(path[0]) == part else x, updates
        )

    return optax.stateless(scale)


def _decay_mask(params: optax.Params) -> optax.Params:
    def of(path, _):
        return decays([name for name in map(_name, path) if name != "value"])

    return jax.tree_util.tree_map_with_path(of, params)


def _name(entry) -> str | int:
    for attribute in ("key", "idx", "name"):  # of a dict, a sequence, an object
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    raise TypeError(f"a parameter path holds {entry!r}; dict keys, indices and names are known.")
